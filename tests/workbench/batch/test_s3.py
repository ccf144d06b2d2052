"""A store on S3, by its protocol: moto's server answers as the real one does, conditional writes among it."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from apps.cli import main
from tests.tiny_models import tiny_model
from tests.workbench.batch.made import CATALOG, spec
from workbench import batch
from workbench.batch.backing import objects
from workbench.batch.backing.address import backing_of
from workbench.errors import InputError, UnavailableError

pytest.importorskip("s3fs", reason="pip install 'interp-workbench[s3]'")
server = pytest.importorskip("moto.server", reason="pip install 'moto[server]'")
boto3 = pytest.importorskip("boto3")

_WORKER = """
import sys
from tests.tiny_models import tiny_model
from tests.workbench.batch.made import CATALOG, spec
from workbench import batch
models = {"tiny": tiny_model("llama", n_layers=3)}
print("ready", flush=True)
sys.stdin.readline()
batch.worker(sys.argv[1], catalog=CATALOG, models=models)
"""


@pytest.fixture
def s3(monkeypatch):
    """A server of S3 that this process and those that it starts know."""
    import s3fs

    started = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "ann", "AWS_SECRET_ACCESS_KEY": "hushhush",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield started
    with ThreadPoolExecutor(1) as pool:
        pool.submit(started.stop)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def models():
    return {"tiny": tiny_model("llama", n_layers=3)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, models):
    return batch.run(spec(60), tmp_path_factory.mktemp("whole"), catalog=CATALOG, models=models)


def same(one, other):
    for name in one.analyses:
        mine, its = one.aggregate(name), other.aggregate(name)
        assert mine.identical(its.assign_attrs(provenance=mine.attrs["provenance"]))
    return one.rows("norms").identical(other.rows("norms"))


def worker(address):
    """A worker in a process of its own, which waits for a line before it starts."""
    root = Path(__file__).resolve().parents[3]
    started = subprocess.Popen(
        [sys.executable, "-c", _WORKER, address], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert started.stdout.readline() == b"ready\n"
    return started


def test_one_alone_can_create_an_object(s3):
    place = backing_of("s3://bucket/run")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: place.create("leases/a.lease", b"%d" % i), range(8)))
    assert sum(made) == 1 and place.read("leases/a.lease", 9) == b"%d" % made.index(True)


def test_an_object_has_its_bytes_and_no_more_than_was_asked_for(s3):
    place = backing_of("s3://bucket/run")
    for content in (b"", b"x", b"12345"):
        place.write("a.json", [content])
        assert place.read("a.json", 5) == content and place.has("a.json")
    assert list(place.lines("a.json")) == [b"12345"] and place.looks("a.json") == ("12345", "")
    with pytest.raises(InputError, match="over 4 bytes"):
        place.read("a.json", 4)
    with pytest.raises(InputError, match="no object at s3://bucket/run/b"):
        place.read("b", 4)


def test_a_shard_costs_few_requests(s3, models, caplog):
    """Each takes some hundredths of a second on a real store, while nothing is computed."""
    batch.plan(spec(60), "s3://bucket/few", catalog=CATALOG, models=models).write()
    with caplog.at_level("INFO", logger="werkzeug"):
        caplog.clear()
        done = batch.worker("s3://bucket/few", catalog=CATALOG, models=models)
    assert 5 * done.shards < sum("HTTP/1.1" in line for line in caplog.messages) < 17 * done.shards


def test_a_run_on_s3_equals_that_in_a_folder(s3, models, whole, tmp_path, capsys):
    found = batch.run(spec(60), "s3://bucket/runs/made", catalog=CATALOG, models=models)
    assert same(found, whole) and same(batch.open("s3://bucket/runs/made"), whole)
    assert len(found.store.ledger()) == found.n_shards and found.store.backing.names("leases") == []
    assert main(["batch", "status", "s3://bucket/runs/made"]) == 0
    assert f"{found.n_shards} of {found.n_shards} shards done" in capsys.readouterr().out
    assert main(["batch", "report", "s3://bucket/runs/made"]) == 0
    assert capsys.readouterr().out == "s3://bucket/runs/made/report.html\n"
    assert main(["batch", "export", "s3://bucket/runs/made"]) == 2
    assert "Add --out FOLDER" in capsys.readouterr().err
    assert main(["batch", "export", "s3://bucket/runs/made", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "norms.nc").exists()


@pytest.mark.slow
def test_two_worker_processes_on_a_bucket_equal_the_local_run(s3, models, whole):
    batch.plan(spec(60), "s3://bucket/shared", catalog=CATALOG, models=models).write()
    both = [worker("s3://bucket/shared") for _ in range(2)]
    for one in both:
        one.stdin.write(b"\n")
        one.stdin.flush()
    assert [one.wait(timeout=300) for one in both] == [0, 0]
    found = batch.open("s3://bucket/shared")
    assert found.n_done == found.n_shards == len(found.store.ledger()) and same(found, whole)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_shard_and_no_number(s3, models, whole):
    made = batch.plan(spec(60), "s3://bucket/killed", catalog=CATALOG, models=models)
    made.write()
    first, second = (worker("s3://bucket/killed") for _ in range(2))
    for one in (first, second):
        one.stdin.write(b"\n")
        one.stdin.flush()
    while len(made.store.backing.names("ledger")) < 3 and first.poll() is None:
        time.sleep(0.01)
    first.kill()
    first.wait()
    left = whole.n_shards - len(made.store.backing.names("ledger"))
    assert left > 0 and second.wait(timeout=300) == 0
    found = batch.open("s3://bucket/killed")
    assert found.n_done == found.n_shards and same(found, whole)


def test_a_bucket_that_is_not_there_is_said_before_a_model_is_loaded(s3):
    with pytest.raises(UnavailableError, match=r"no such bucket.*s3://nowhere/run/leases"):
        batch.run(spec(), "s3://nowhere/run", catalog=CATALOG, models={})
    with pytest.raises(UnavailableError, match="no such bucket"):
        batch.open("s3://nowhere/run")
    with pytest.raises(UnavailableError, match="no such bucket"):
        batch.plan(spec(), "s3://nowhere/run", catalog=CATALOG, models={})
    with pytest.raises(UnavailableError, match="no batch in s3://bucket/none"):
        batch.open("s3://bucket/none")


def test_a_server_that_ends_in_the_middle_is_a_sentence_and_what_is_finished_is_kept(s3, models, whole, monkeypatch):
    monkeypatch.setattr(objects, "_OUTAGE", 0.0)
    monkeypatch.setattr(objects.Objects, "pause", 0.0)
    stopped = []

    def stop(status):
        if status.done == 2 and not stopped:
            stopped.append(s3.stop())

    with pytest.raises(UnavailableError, match=r"s3://bucket/lost.*what is finished in it is kept") as refused:
        batch.run(spec(60), "s3://bucket/lost", catalog=CATALOG, models=models, progress=stop)
    assert stopped and "hushhush" not in str(refused.value)
    again = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    again.start()
    host, port = again.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    assert batch.open("s3://bucket/lost").n_done == 2
    assert same(batch.run(spec(60), "s3://bucket/lost", catalog=CATALOG, models=models), whole)
    again.stop()


def test_a_key_that_the_server_does_not_know_is_a_sentence(s3):
    from urllib.request import Request, urlopen

    host, port = s3.get_host_and_port()
    plain = {"Content-Type": "text/plain"}
    set_to = lambda n: urlopen(Request(f"http://{host}:{port}/moto-api/reset-auth", n, plain, method="POST")).close()
    set_to(b"0")  # requests that are let through unchecked
    try:
        with pytest.raises(UnavailableError, match=r"Access Key.*at s3://bucket/run/.*Check the .*credentials") as said:
            batch.run(spec(), "s3://bucket/run", catalog=CATALOG, models={})
        assert "hushhush" not in str(said.value)
    finally:
        set_to(b"inf")


def test_without_any_credentials_it_is_a_sentence(monkeypatch):
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UnavailableError, match=r"at s3://bucket/run/.*the credentials and the network"):
        batch.run(spec(), "s3://bucket/run", catalog=CATALOG, models={})
    s3fs.S3FileSystem.clear_instance_cache()
