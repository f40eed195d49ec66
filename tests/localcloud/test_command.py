import argparse
from pathlib import Path

import pytest

from wavelift.localcloud.command import add_arguments, kept_key


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--state", "x", *arguments])


def test_defaults() -> None:
    args = parse()
    assert (args.listen, args.access_key, args.profile) == (("127.0.0.1", 0), [], "fast")
    assert not args.allow_host_instances and args.image_from_data_snapshot == "allowed"


def test_keys_repeat_and_secrets_may_hold_colons() -> None:
    assert parse("--access-key", "a:b:c", "--access-key", "d:e").access_key == [("a", "b:c"), ("d", "e")]


@pytest.mark.parametrize(
    "arguments", [["--listen", "nowhere"], ["--listen", "h:99999"], ["--access-key", "id-only"], ["--profile", "slow"]]
)
def test_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(*arguments)


def test_a_kept_key_stays(tmp_path: Path) -> None:
    key = kept_key(tmp_path)
    assert kept_key(tmp_path) == key
    assert (tmp_path / "access-key.json").stat().st_mode & 0o077 == 0
