"""What a person is told of images that cannot be used."""

import pytest

from normexp.config.schema import DataConfig
from normexp.data import sources
from normexp.system.errors import UserError


def refusal(data: DataConfig) -> str:
    """The one line with which these images are refused."""
    with pytest.raises(UserError) as caught:
        sources.load(data, progress=False)
    message = str(caught.value)
    assert "\n" not in message
    return message
