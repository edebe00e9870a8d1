from .audio.source import open_audio as open_audio
from .audio.source import open_channels as open_channels
from .config import PRESETS as PRESETS
from .config import ModelConfig as ModelConfig
from .decoding.greedy import Greedy as Greedy
from .decoding.state import Emission as Emission
from .decoding.state import Search as Search
from .errors import AudioError as AudioError
from .errors import Backlog as Backlog
from .errors import CheckpointError as CheckpointError
from .errors import ConfigError as ConfigError
from .errors import DataError as DataError
from .errors import EngineError as EngineError
from .errors import EngineFull as EngineFull
from .errors import NemojaxError as NemojaxError
from .errors import TokenizerError as TokenizerError
from .errors import TranscriptionError as TranscriptionError
from .model.transducer import Transducer as Transducer
from .recognition.hypothesis import Update as Update
from .recognition.recognizer import Recognizer as Recognizer
from .recognition.recognizer import load as load
from .recognition.stream import Stream as Stream
from .recognition.stream_batch import StepInput as StepInput
from .recognition.stream_batch import StreamBatch as StreamBatch
from .serving.engine import Engine as Engine
from .serving.live_stream import LiveStream as LiveStream
from .streaming import Segment as Segment
from .streaming import StreamState as StreamState
from .streaming import init_state as init_state
from .streaming import prepare as prepare
from .streaming import segments_of as segments_of
from .streaming import step as step
from .streaming import transcribe_scan as transcribe_scan
from .text.transcript import Transcript as Transcript
from .text.transcript import Word as Word

__version__: str
__all__: list[str]
