"""Speaks for Nova: python-glanceclient 2.0.0's v1 library, in an environment of its own.

Each line of standard input is a request in JSON: whom to be (`identity`, header by header), the
`call` (such as "images.get") and its `arguments`. `data` names a file to send, `save` one to
write what is downloaded to. Each line of standard output is the answer: a `result`, or the
`error`'s class, status `code` and `text`.
"""

import json
import sys
import warnings

warnings.simplefilter("ignore")

from glanceclient import exc  # noqa: E402
from glanceclient.v1 import client  # noqa: E402
from glanceclient.v1.image_members import ImageMember  # noqa: E402
from glanceclient.v1.images import Image  # noqa: E402

ENDPOINT = sys.argv[1]


def perform(request):
    # The library takes the token out of what it is given.
    glance = client.Client(ENDPOINT, identity_headers=dict(request["identity"]))
    manager, _, method = request["call"].partition(".")
    arguments = request["arguments"]
    if "data" in request:
        # Nova hands over an open file, whose size the library does not always find out.
        with open(request["data"], "rb") as file:
            return call(glance, manager, method, {**arguments, "data": Stream(file)})
    found = call(glance, manager, method, arguments)
    if "save" in request:
        with open(request["save"], "wb") as file:
            for chunk in found:
                file.write(chunk)
        return None
    return found


def call(glance, manager, method, arguments):
    found = getattr(getattr(glance, manager), method)(**arguments)
    if method == "list":
        return [shown(each) for each in found]
    return shown(found)


def shown(found):
    return found.to_dict() if isinstance(found, (Image, ImageMember)) else found


class Stream:
    """A file that cannot be measured, as what libvirt is just writing cannot."""

    def __init__(self, file):
        self.read = file.read


for line in sys.stdin:
    try:
        answer = {"result": perform(json.loads(line))}
    except exc.HTTPException as error:
        answer = {"error": type(error).__name__, "code": error.code, "text": str(error)}
    except OSError as error:
        answer = {"error": type(error).__name__, "code": None, "text": str(error)}
    print(json.dumps(answer), flush=True)
