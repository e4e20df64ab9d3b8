"""A store in a bucket: written, continued, proved and read like one in a folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
from aiohttp import ClientPayloadError
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result
from dask_processes import running, scheduling, worker
from s3_objects import change, duplicate, files, key, objects, upload
from training import SMALL

from trar.cli import data, main
from trar.errors import ConfigError, DiskError, StoreError, TrarError
from trar.features import FeatureStore, s3_lock, verify_store
from trar.features.convert import convert_store
from trar.features.place import open_place, place_of
from trar.features.s3_client import client, explain
from trar.pipeline import PrepareConfig, PrepareResult, prepare

PREPARE = """
import sys
from pathlib import Path
from trar.pipeline import PrepareConfig, prepare
prepare(PrepareConfig(raw=Path(sys.argv[1]), store=sys.argv[2], split="val", limit=24,
                      shard_images=4, workers=0))
"""


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    with scheduling(tmp_path) as address:
        yield address


def make(raw: Path, store: Path | str, split: str = "val", **settings: object) -> PrepareResult:
    given = {"limit": 24, "shard_images": 4, "workers": 0, **settings}
    return prepare(PrepareConfig(raw=raw, store=store, split=split, **given))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def local(vqa_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store as it is on a disk."""
    store = tmp_path_factory.mktemp("local") / "s"
    make(vqa_raw, store)
    return store


@pytest.fixture(scope="module")
def remote(vqa_raw: Path, bucket: str) -> str:
    """The same store in a bucket; not to be changed."""
    store = f"{bucket}/some/where"
    make(vqa_raw, store)
    return store


def test_objects_are_the_files_of_a_local_store(local: Path, remote: str) -> None:
    assert objects(remote) == files(local)


def test_prepare_again_does_nothing(vqa_raw: Path, remote: str) -> None:
    before = client().find(key(remote), detail=True)
    result = invoke(
        "prepare", "--raw", vqa_raw, "--store", remote, "--split", "val", "--limit", 24,
        "--shard-images", 4,
    )  # fmt: skip
    assert result.output == f"{remote}/vqa: already complete, nothing to do\n"
    assert client().find(key(remote), detail=True) == before  # the times of writing too


def test_commands_read_it(local: Path, remote: str) -> None:
    assert "sound" in invoke("verify", "--store", remote).output
    info = json.loads(invoke("info", remote, "--json").output)
    assert info == json.loads(invoke("info", local, "--json").output)
    question = FeatureStore(remote).questions("val").ids[0]
    shown = [invoke("show", f"vqa/val/{question}", "--store", one) for one in (remote, local)]
    assert shown[0].exit_code == 0
    assert shown[0].output == shown[1].output


def test_dry_run_writes_nothing(vqa_raw: Path, bucket: str) -> None:
    result = invoke("prepare", "--raw", vqa_raw, "--store", f"{bucket}/dry", "--dry-run")
    assert f"{bucket}/dry/vqa" in result.output
    assert "no limit known" in result.output
    assert objects(f"{bucket}/dry") == {}


def test_later_prepares_give_the_files_of_a_local_store(
    vqa_raw: Path,
    local: Path,
    remote: str,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A split is added, then shards are made anew from a raw file that has changed."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    there, here = f"{bucket}/more", shutil.copytree(local, tmp_path / "s")
    duplicate(remote, there)
    for store in (there, here):
        result = make(vqa_raw, store, "train+val")
        assert (result.made, result.kept) == (["train"], ["val"])
    assert objects(there) == files(here)
    raw = shutil.copytree(vqa_raw, tmp_path / "data", symlinks=True)
    first = min((raw / "vqa/feats/val2014").iterdir(), key=_image_id)
    first.unlink()
    np.savez(first.with_suffix(".npz"), x=np.ones((64, 12), np.float32))
    for store in (there, here):
        assert make(raw, store, "train+val").remade == ["val2014"]
    assert objects(there) == files(here)
    assert list((tmp_path / "temporary").iterdir()) == []


def _image_id(path: Path) -> int:
    return int("".join(one for one in path.name.partition(".")[0][-12:] if one.isdigit()))


def test_killed_prepare_goes_on_from_its_finished_shards(
    vqa_raw: Path, local: Path, bucket: str, tmp_path: Path
) -> None:
    store = f"{bucket}/killed"
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(vqa_raw), store],
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # where the kill leaves what was in flight
    )
    while not list(_receipts(store)) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = len(list(_receipts(store)))
    assert 0 < finished < 6
    with pytest.raises(StoreError, match="an unfinished store"):
        FeatureStore(store)
    totals = set()
    prepare(
        PrepareConfig(raw=vqa_raw, store=store, split="val", limit=24, shard_images=4, workers=0),
        lambda stage, _, total: totals.add(total) if stage == "features" else None,
    )
    assert totals == {24 - 4 * finished}
    assert objects(store) == files(local)


def _receipts(store: str) -> list[str]:
    return client().glob(f"{key(store)}/vqa/.prepare/*.json")


def test_cluster_writes_it(
    vqa_raw: Path,
    local: Path,
    bucket: str,
    scheduler: str,
) -> None:
    store = f"{bucket}/cluster"
    with running(worker(scheduler, "one"), worker(scheduler, "two")):
        make(vqa_raw, store, scheduler=scheduler)
    assert objects(store) == files(local)


def test_workers_without_credentials_are_named(
    vqa_raw: Path,
    bucket: str,
    scheduler: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.delenv("AWS_ACCESS_KEY_ID")
        poor = worker(scheduler, "poor")
    with running(poor), pytest.raises(TrarError, match=r"worker tcp.*no AWS credentials found"):
        make(vqa_raw, f"{bucket}/poor", scheduler=scheduler)
    assert objects(f"{bucket}/poor") == {}


def test_second_prepare_is_refused(vqa_raw: Path, bucket: str) -> None:
    folder = open_place(f"{bucket}/twice/vqa")
    with (
        place_of(folder).hold(),
        pytest.raises(StoreError, match=r"another trar-data \(process \d+ on .*is writing this"),
    ):
        make(vqa_raw, f"{bucket}/twice")
    assert objects(f"{bucket}/twice") == {}


def test_lock_of_another_machine_holds_until_it_is_stale(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_place(f"{bucket}/stale/vqa")
    since = datetime.now(UTC).isoformat()
    owner = s3_lock.Owner("elsewhere", 2**22 + 1, "another machine", since, "token")
    change(f"{folder}/{s3_lock.LOCK}", msgspec.json.encode(owner))
    with pytest.raises(StoreError, match=r"on elsewhere.*is of a killed process and will be taken"):
        place_of(folder).hold().__enter__()
    monkeypatch.setattr(s3_lock, "STALE_S", -1)
    with place_of(folder).hold() as hold:
        hold.check()
        change(f"{folder}/{s3_lock.LOCK}", msgspec.json.encode(owner))
        with pytest.raises(StoreError, match="another trar-data has taken this dataset over"):
            hold.check()
    assert client().exists(f"{key(folder)}/{s3_lock.LOCK}")  # not ours, not removed


def test_writer_that_lost_its_lock_removes_nothing(bucket: str) -> None:
    folder = open_place(f"{bucket}/lost/vqa")

    def write() -> None:
        with place_of(folder).hold() as hold:
            change(f"{folder}/{s3_lock.LOCK}", b"{}")
            change(f"{folder}/theirs", b"1")
            hold.check()

    with pytest.raises(StoreError, match="another trar-data has taken this dataset over"):
        write()
    assert client().exists(f"{key(folder)}/theirs")


def test_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(bucket: str) -> None:
    folder = open_place(f"{bucket}/dead/vqa")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    owner = s3_lock.Owner("here", process.pid, s3_lock._machine(), "now", "token")
    change(f"{folder}/{s3_lock.LOCK}", msgspec.json.encode(owner))
    with place_of(folder).hold() as hold:
        hold.check()
    assert not client().exists(f"{key(folder)}/{s3_lock.LOCK}")


def test_lock_is_renewed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_lock, "RENEW_S", 0.01)
    folder = open_place(f"{bucket}/beats/vqa")
    with place_of(folder).hold():
        beats = {_beat(folder)}
        while len(beats) < 3:
            beats.add(_beat(folder))


def _beat(folder: Path) -> int:
    return json.loads(client().cat_file(f"{key(folder)}/{s3_lock.LOCK}"))["beat"]


def test_damage_is_found_never_read_and_repaired(vqa_raw: Path, remote: str, bucket: str) -> None:
    store = f"{bucket}/damaged"
    duplicate(remote, store)
    shards = [f"arrays.zarr/images/val2014/features/c/{number}/0/0" for number in range(3)]
    places = [f"{store}/vqa/{name}" for name in shards]
    shard = client().cat_file(key(places[0]))
    flipped = bytearray(client().cat_file(key(places[1])))
    flipped[2000] ^= 1
    change(places[1], bytes(flipped))
    opened = FeatureStore(store)
    opened.read("val2014", [0, 4])
    says = r"features/c/1/0/0: image \d+ \(row 5 of val2014\) does not match its crc32c"
    with pytest.raises(StoreError, match=says):
        opened.read("val2014", [0, 5])
    change(places[0], shard[:-1])
    with pytest.raises(StoreError, match=rf"c/0/0/0: {len(shard) - 1} bytes, expected"):
        FeatureStore(store)
    client().rm_file(key(places[2]))
    with pytest.raises(StoreError, match=r"features/c/2/0/0.* is missing"):
        opened.read("val2014", [9])
    found = {one.where: one.what for one in verify_store(open_place(store))}
    assert [found[name].split(" is ")[0] for name in shards] == [
        f"{len(shard) - 1} bytes, expected {len(shard)}",
        "sha256",
        "missing",
    ]
    repaired = invoke("repair", "--store", store, "--raw", vqa_raw, "--workers", 0)
    assert repaired.output.endswith(f"{store}/vqa: 3 file(s) repaired, the store is sound\n")
    assert objects(store) == objects(remote)


def test_store_goes_back_to_a_disk(local: Path, remote: str, tmp_path: Path) -> None:
    folder, _ = convert_store(open_place(remote), tmp_path / "s", "zarr")
    arrays = {name: one for name, one in files(folder).items() if name.startswith("arrays")}
    assert arrays == {k: v for k, v in files(local / "vqa").items() if k.startswith("arrays")}


def test_hdf5_is_refused(vqa_raw: Path, bucket: str, tmp_path: Path) -> None:
    result = invoke("prepare", "--raw", vqa_raw, "--store", f"{bucket}/h", "--format", "hdf5")
    assert result.exit_code == 1
    assert "an HDF5 store must be in a local folder" in result.output
    assert objects(f"{bucket}/h") == {}


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("gs://bucket/prefix", "a store is in a local folder or at s3://bucket/prefix"),
        ("s3://bucket", "expected s3://bucket/prefix"),
        ("s3:///prefix", "expected s3://bucket/prefix"),
    ],
)
def test_addresses_that_are_none(place: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        FeatureStore(place)


def test_pathlib_eats_a_slash_and_nobody_minds(bucket: str) -> None:
    assert open_place(Path(f"{bucket}/a")) == open_place(f"{bucket}/a/")
    assert str(open_place(Path(f"{bucket}/a"))) == f"{bucket}/a"
    assert open_place("features") == Path("features")
    assert open_place("C/a:/b") == Path("C/a:/b")


def test_only_a_store_may_be_in_a_bucket(bucket: str) -> None:
    result = invoke("prepare", "--raw", f"{bucket}/raw", "--store", "s")
    assert result.exit_code == 2
    assert "only a store may be at an address; give a local path" in result.output


def test_missing_bucket_is_named(vqa_raw: Path, bucket: str) -> None:
    for command in (["info"], ["prepare", "--raw", vqa_raw], ["verify"]):
        result = invoke(*command, "--store", "s3://no-such-bucket-here/a")
        assert result.exit_code == 1
        assert "s3://no-such-bucket-here: no such bucket at http://127" in result.output


def test_missing_store_is_named(bucket: str) -> None:
    result = invoke("info", "--store", f"{bucket}/nothing")
    assert f"{bucket}/nothing: no such folder; make the store with" in result.output


def test_missing_credentials_are_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(DiskError, match="no AWS credentials found; set AWS_ACCESS_KEY_ID and"):
        FeatureStore(f"{bucket}/a")


def test_denied_access_is_named(bucket: str, s3_server: str) -> None:
    def authenticate(after: str) -> None:
        url = f"{s3_server}/moto-api/reset-auth"
        headers = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, after.encode(), headers)).close()

    authenticate("0")  # from the next request on the server knows nobody
    try:
        with pytest.raises(DiskError, match=r"access denied by http.*check AWS_ACCESS_KEY_ID"):
            FeatureStore(f"{bucket}/a")
    finally:
        authenticate("inf")


def test_server_that_is_not_there_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(DiskError, match=r"http://127\.0\.0\.1:9 cannot be reached.*AWS_ENDPOINT"):
        FeatureStore(f"{bucket}/a")


def test_failures_of_the_server_and_broken_connections_are_named() -> None:
    answer = {"Error": {"Code": "SlowDown", "Message": "Reduce your request rate."}}
    busy = OSError("Reduce your request rate.")
    busy.__cause__ = ClientError(answer, "PutObject")
    says = str(explain(busy, "bucket", "a/b"))
    assert says.startswith("s3://bucket/a/b: ")
    assert "failed (SlowDown: Reduce your request rate.); run the same command again" in says
    broken = ClientPayloadError("Response payload is not completed")
    assert "cannot be reached (Response payload is not" in str(explain(broken, "bucket", "a/b"))
    assert explain(FileNotFoundError("a/b"), "bucket", "a/b") is None


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trar.features.s3")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules, "trar.features.s3_client")
    monkeypatch.delitem(sys.modules, "trar.features.s3_lock", raising=False)
    with pytest.raises(ConfigError, match=r's3fs is not installed.*pip install "trar\[s3\]"'):
        FeatureStore("s3://bucket/prefix")


def test_training_streams_from_a_bucket(
    shared_store: FeatureStore, bucket: str, tmp_path: Path
) -> None:
    """The same scores as from a disk."""
    upload(shared_store.path, f"{bucket}/tiny")
    scores = []
    for store in (f"{bucket}/tiny", shared_store.path):
        settings = [part for one in SMALL for part in ("--set", one)]
        place = ["--store", str(store), "--runs", str(tmp_path), "--preset", "easy-vqa", "--json"]
        result = CliRunner().invoke(main, ["train", *place, "--device", "cpu", *settings])
        assert result.exit_code == 0, result.output
        scores.append(json.loads(result.stdout)["scores"])
    assert scores[0] == scores[1]
    configs = [path.read_text() for path in tmp_path.rglob("config.yaml")]
    assert any(f"store: {bucket}/tiny" in text for text in configs)
