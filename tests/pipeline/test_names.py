"""Names in a recipe are checked before anything runs."""

import pytest

from topospike.errors import ConfigError
from topospike.pipeline.names import check_names
from topospike.recipe.files import packaged_recipes, resolve
from topospike.recipe.parts import parts


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_name_of_a_packaged_recipe_is_known(name):
    for part in parts(resolve(name)):
        check_names(part)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": {"name": "resnet81"}}, "unknown model 'resnet81'.*'resnet18'"),
        ({"train": {"schedule": "cosin"}}, "'cosin'.*'cosine'"),
        ({"train": {"execution": "compcat"}}, "unknown execution 'compcat'.*'compact'"),
        ({"sparsity": {"rule": "cths"}}, "unknown rule 'cths'.*'chts'"),
        ({"sparsity": {"initial_topology": "brv"}}, "'brv'.*'brf'"),
        ({"sparsity": {"weight_init": "swy"}}, "'swy'.*'swi'"),
        ({"sparsity": {"linear_score": "CH2-3n"}}, "'CH2-3n'.*'CH2-L3n'"),
        ({"sparsity": {"conv_score": "CH3-L2n"}}, "'CH3-L2n'.*'CH3-L3n'"),
        ({"sparsity": {"removal": "magnitud"}}, "'magnitud'.*'magnitude'"),
        ({"sparsity": {"zeta_schedule": "cosines"}}, "'cosines'.*'cosine'"),
        ({"sparsity": {"density_decay": "sigmod"}}, "'sigmod'.*'sigmoid'"),
        ({"convert": [{"method": "qfcs"}]}, "'qfcs'.*'qcfs'"),
        ({"convert": [{"options": {"coding": "rates"}}]}, "'rates'.*'rate'"),
        ({"convert": [{"options": {"solver": "optimum"}}]}, "'optimum'.*'optimal'"),
        ({"convert": [{"options": {"level": 4}}]}, "no option 'level'.*'levels'"),
        ({"convert": [{"options": {"levels": "four"}}]}, "levels is 'four'; a whole number from"),
        ({"measure": {"energy_model": "45mn"}}, "'45mn'.*'45nm'"),
        ({"measure": {"pooled": "fould"}}, "pooled='fould'.*'fold'"),
        ({"measure": {"first_layer": "mac"}}, "first_layer='mac'"),
        ({"measure": {"executor": "intger"}}, "unknown executor 'intger'.*'integer'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(overrides, message):
    with pytest.raises(ConfigError, match=message):
        check_names(resolve("demo", overrides))
