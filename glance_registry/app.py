"""The wiring: configuration -> database -> controllers -> routes -> pipeline."""

from contextvars import ContextVar
from typing import Any

from common.config import Configuration
from common.wsgi.faults import Application, FaultFilter
from common.wsgi.paste import configuration, load_app
from common.wsgi.readiness import ReadinessFilter
from common.wsgi.resource import Router
from glance_registry.access import RegistryAccess
from glance_registry.db.engine import Database
from glance_registry.db.owner_limits import NO_LIMITS, OwnerLimits
from glance_registry.db.settings import database_settings
from glance_registry.images import ImagesController, ListSettings
from glance_registry.leases import LeasesController
from glance_registry.members import MembersController
from glance_registry.router import image_routes, lease_routes

_database: ContextVar[Database] = ContextVar("database")


def build(conf: Configuration) -> Application:
    """The daemon's whole application: the configured pipeline, behind the registry's key."""
    database = Database(database_settings(conf))
    token = _database.set(database)
    try:
        pipeline = load_app(conf, "registry")
    finally:
        _database.reset(token)
    leases_app = Router(lease_routes(LeasesController(database)))
    app: Application = FaultFilter(RegistryAccess(pipeline, leases_app, conf.registry_auth_key))
    return ReadinessFilter(app, {"database": database.ping}) if conf.readiness.enabled else app


def app_factory(_global_conf: dict[str, str], **_local_conf: str) -> Application:
    """paste.deploy's: the routes at the end of a pipeline."""
    conf: Any = configuration()
    if not conf.enable_v1_registry:
        return FaultFilter(Router([]))
    database = _database.get(None) or Database(database_settings(conf))
    lists = ListSettings(conf.limit_param_default, conf.api_limit_max, conf.sharing.list_unaccepted)
    limits = OwnerLimits(conf.limits.images_per_tenant, conf.limits.queued_images_per_tenant)
    return application(database, lists, conf.image_member_quota, limits)


def application(
    database: Database,
    lists: ListSettings,
    member_quota: int,
    owner_limits: OwnerLimits = NO_LIMITS,
) -> Application:
    """The registry's routes over a database, for callers whose context is established.

    Faults are answered here, so that filters in front add their headers to those as well.
    """
    images = ImagesController(database, lists, owner_limits)
    members = MembersController(database, member_quota)
    leases = LeasesController(database)
    return FaultFilter(Router([*image_routes(images, members), *lease_routes(leases)]))
