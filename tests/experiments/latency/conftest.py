import numpy as np
import pytest

from experiments.latency.weights import read_speech


@pytest.fixture(scope="package")
def work(tmp_path_factory, checkpoint_directory):
    """The weights and recordings of nemojax alone."""
    directory = tmp_path_factory.mktemp("work")
    (directory / "native").symlink_to(checkpoint_directory)
    np.savez(directory / "recordings.npz", *read_speech((), [3.0], seed=0))
    return directory
