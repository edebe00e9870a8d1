"""The synthesizers that are installed here."""

import shutil

import pytest

from experiments.synthesis import programs
from experiments.synthesis.voices import PROGRAMS, VOICES
from nemojax.errors import ConfigError

INSTALLED = [program for program in PROGRAMS if shutil.which(program)]


def installed_voices():
    if not INSTALLED:
        pytest.skip("none of espeak-ng, flite and festival is installed")
    voices = [voice for voice in VOICES if voice.program in INSTALLED]
    try:
        programs.require(voices)
    except ConfigError as error:
        pytest.skip(str(error))
    return voices
