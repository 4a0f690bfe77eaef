from dataclasses import replace

from imagers.encrypt.sealing import SharedLayers, plan_copied, plan_sealed
from imagers.model.media import DOCKER_LAYER_GZIP, OCI_LAYER_GZIP, Compression


def first_layer(image):
    return next(iter(image.layers()))


def test_shared_layers_are_found_by_what_they_are_and_keep_their_own_annotations(plain_image):
    layer = first_layer(plain_image("gzip"))
    shared = SharedLayers()
    assert shared.find(layer) is None
    enc = "org.opencontainers.image.enc.pubopts"
    done = replace(layer.descriptor, media_type="x", annotations={"theirs": "1", enc: "2"})
    shared.remember(layer, done)
    own = replace(layer, descriptor=replace(layer.descriptor, annotations={"own": "3"}))
    assert shared.find(own).annotations == {"own": "3", enc: "2"}


def test_layers_that_differ_in_anything_that_counts_are_not_shared(plain_image):
    layer = first_layer(plain_image("gzip"))
    shared = SharedLayers()
    shared.remember(layer, layer.descriptor)
    old = layer.descriptor
    others = [
        replace(layer, descriptor=replace(old, size=old.size + 1)),
        replace(layer, descriptor=replace(old, media_type="x")),
        replace(
            layer,
            descriptor=replace(old, annotations={"org.opencontainers.image.enc.keys.jwe": "x"}),
        ),
        replace(layer, diff_id=old.digest),
    ]
    assert [shared.find(one) for one in others] == [None] * 4


def test_plans_name_the_types_that_layers_will_have(plain_image):
    layer = first_layer(plain_image("gzip"))
    docker = replace(layer, descriptor=replace(layer.descriptor, media_type=DOCKER_LAYER_GZIP))
    assert plan_copied(docker, was_docker=True).media_type == OCI_LAYER_GZIP
    assert plan_copied(docker, was_docker=False).media_type == DOCKER_LAYER_GZIP
    plan = plan_sealed(docker, Compression.ZSTD)
    assert plan.media_type == OCI_LAYER_GZIP + "+encrypted"
    assert plan.compress is None
