"""glance-registry: image metadata over HTTP; decides ownership and visibility."""
