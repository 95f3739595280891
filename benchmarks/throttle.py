"""Under 503s: how many PUTs of our FileIO succeed, and how fast, beside boto3, PyArrow and obstore.

`python -m benchmarks.throttle [--puts N] [--seconds S] [--only CLIENT] [--case STORE]` prints a Markdown table. 48
threads write objects of 1 kB to SeaweedFS through the fault server, which throttles like S3 at 10 writes a second, or
answers 503 by the toss of a coin. Each client runs in processes of its own; of several that share a limit, the table
says what the one that got least got of an even share.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import _goals
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault

BUCKET = "bench"
GOAL = 95.0  # % of what the store allows
THREADS = 48
RATE = 10.0  # writes a second; S3's 3,500 for 17,000 threads
TRIES = 32  # ours by default; Iceberg's advice
BODY = bytes(1_000)
FREE_S = 5.0  # to see what client and servers do without faults
GIVEN_UP_S = 180.0  # what is not done then counts as failed: PyArrow's AwsDefault doubles its waits without an end

Put = Callable[[str], object]


@dataclass(frozen=True)
class Case:
    """What the clients meet.

    Attributes:
        name: for the table.
        processes: that share the 48 threads.
        rate: writes a second that the store admits; None: all that it can.
        faults: beside it.
        timed: whether writers go on for some seconds, or until their PUTs are done.
    """

    name: str
    processes: int = 1
    rate: float | None = RATE
    faults: tuple[Fault, ...] = ()
    timed: bool = False


COIN = Fault(effect=Effect.SLOW_DOWN, probability=0.5, times=None)
CASES = (
    Case(f"{RATE:.0f}/s"),
    Case(f"{RATE:.0f}/s, 4 processes", processes=4, timed=True),
    Case("p = 0.5", rate=None, faults=(COIN,), timed=True),
)


def ours(properties: Mapping[str, str]) -> Put:
    """Our FileIO as it is by default."""
    files = LakehouseFileIO(dict(properties))
    return lambda key: files.put(f"s3://{BUCKET}/{key}", BODY)


def boto3_client(properties: Mapping[str, str], mode: str, tries: int | None) -> Put:
    """One of boto3's retry modes."""
    import boto3  # noqa: PLC0415  # a client loads its own library only
    from botocore.config import Config  # noqa: PLC0415

    retries = {"mode": mode, **({"total_max_attempts": tries} if tries else {})}
    client = boto3.client(
        "s3",
        endpoint_url=properties["s3.endpoint"],
        region_name=properties["s3.region"],
        aws_access_key_id=properties["s3.access-key-id"],
        aws_secret_access_key=properties["s3.secret-access-key"],
        config=Config(retries=retries, max_pool_connections=THREADS, s3={"addressing_style": "path"}),
    )
    return lambda key: client.put_object(Bucket=BUCKET, Key=key, Body=BODY)


def pyarrow_client(properties: Mapping[str, str], strategy: str | None) -> Put:
    """PyArrow's S3FileSystem: three requests a file, as it begins a multipart upload for each."""
    from pyarrow import fs  # noqa: PLC0415

    found = {"retry_strategy": getattr(fs, strategy)(max_attempts=TRIES)} if strategy else {}
    files = fs.S3FileSystem(
        endpoint_override=properties["s3.endpoint"],
        region=properties["s3.region"],
        access_key=properties["s3.access-key-id"],
        secret_key=properties["s3.secret-access-key"],
        **found,
    )

    def put(key: str) -> None:
        with files.open_output_stream(f"{BUCKET}/{key}") as stream:
            stream.write(BODY)

    return put


def obstore_client(properties: Mapping[str, str], tries: int | None) -> Put:
    """The Python face of Rust's object_store."""
    import obstore  # noqa: PLC0415

    from benchmarks._obstore import s3_store  # noqa: PLC0415

    retry: Any = {"retry_config": {"max_retries": tries - 1, "retry_timeout": timedelta(minutes=10)}} if tries else {}
    store = s3_store(BUCKET, properties, **retry)
    return lambda key: obstore.put(store, key, BODY)


CLIENTS: Mapping[str, Callable[[Mapping[str, str]], Put]] = {
    "ours": ours,
    **{
        f"boto3 {mode}{f', {tries} tries' if tries else ''}": partial(boto3_client, mode=mode, tries=tries)
        for mode in ("legacy", "standard", "adaptive")
        for tries in (None, TRIES)
    },
    "PyArrow": partial(pyarrow_client, strategy=None),
    f"PyArrow AwsStandard, {TRIES} tries": partial(pyarrow_client, strategy="AwsStandardS3RetryStrategy"),
    f"PyArrow AwsDefault, {TRIES} tries": partial(pyarrow_client, strategy="AwsDefaultS3RetryStrategy"),
    "obstore": partial(obstore_client, tries=None),
    f"obstore, {TRIES} tries": partial(obstore_client, tries=TRIES),
}


def write(put: Put, threads: int, puts: int, seconds: float) -> dict[str, int]:
    """Put so many objects, or for so many seconds if `puts` is 0; count what succeeded and what failed."""
    began = time.monotonic()
    left, lock, counts = puts, threading.Lock(), {"succeeded": 0, "failed": 0}

    def take() -> bool:
        nonlocal left
        with lock:
            left -= 1
            return left >= 0 if puts else time.monotonic() - began < seconds

    def writer() -> None:
        while take():
            try:
                put(f"x/{uuid.uuid4().hex}")
                outcome = "succeeded"
            except Exception:  # noqa: BLE001  # every library has errors of its own
                outcome = "failed"
            with lock:
                counts[outcome] += 1

    writers = [threading.Thread(target=writer, daemon=True) for _ in range(threads)]
    for each in writers:
        each.start()
    for each in writers:
        each.join(max(0.0, began + GIVEN_UP_S - time.monotonic()))
    with lock:
        unfinished = sum(each.is_alive() for each in writers)
        return {**counts, "failed": counts["failed"] + unfinished + max(0, left)}


def run_client(told: str) -> None:
    """Be one process of a client: get ready, wait for a line, write, and print the counts."""
    asked = json.loads(told)
    put = CLIENTS[asked["client"]](asked["properties"])
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(write(put, asked["threads"], asked["puts"], asked["seconds"])), flush=True)
    os._exit(0)  # whoever still waits for its next try is not waited for


def measure(case: Case, client: str, seaweed: SeaweedServer, puts: int, seconds: float) -> tuple[list[Any], float]:
    """Run one client in one case; give the columns of its row but for the goodput, and PUTs a second."""
    scaling = Scaling(write_rate=case.rate, detect_s=None) if case.rate else None
    with FaultServer(seaweed.endpoint, faults=case.faults, scaling=scaling) as server:
        asked = {
            "client": client,
            "properties": seaweed.s3_properties() | {"s3.endpoint": server.endpoint},
            "threads": THREADS // case.processes,
            "puts": 0 if case.timed else puts // case.processes,
            "seconds": seconds if case.timed else 0,
        }
        command = [sys.executable, "-m", "benchmarks.throttle", "--client", json.dumps(asked)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        running = [subprocess.Popen(command, **pipes) for _ in range(case.processes)]  # type: ignore[call-overload]
        for each in running:
            each.stdout.readline()
        began = len(server.exchanges)  # PyArrow asks as it connects
        for each in running:
            each.stdin.write("go\n")
            each.stdin.flush()
        counts = [json.loads(each.communicate()[0]) for each in running]
        exchanges = server.exchanges[began:]
    first = min(each.at for each in exchanges)
    took = max((each.at - first).total_seconds() + each.seconds for each in exchanges)
    succeeded, failed = (sum(count[name] for count in counts) for name in ("succeeded", "failed"))
    refused = sum(each.status == 503 for each in exchanges)
    least = min(count["succeeded"] for count in counts) * case.processes / max(succeeded, 1)
    return [succeeded, failed, took, refused, len(exchanges), least], succeeded / took


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--puts", type=int, default=400, help="objects of each client of one process at a limit")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each writes in the other cases")
    parser.add_argument("--only", default="", help="clients whose name begins so")
    parser.add_argument("--case", default="", help="cases whose name begins so")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.client:
        run_client(asked.client)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        SeaweedServer(Path(folder) / "seaweed", buckets=(BUCKET,)) as seaweed,
    ):
        _, free = measure(Case("free", rate=None, timed=True), "ours", seaweed, 0, FREE_S)
        print(f"Without faults: {free:.0f} PUTs/s of ours.\n")
        print("| store | client | succeeded | failed | s | goodput | least | 503s | requests |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        ours: dict[str, tuple[float, int]] = {}
        for case in (each for each in CASES if each.name.startswith(asked.case)):
            for client in CLIENTS:
                if client.startswith(asked.only):
                    row, per_s = measure(case, client, seaweed, asked.puts, asked.seconds)
                    succeeded, failed, took, refused, requests, least = row
                    # S3 saves up a second's capacity; a coin halves what all can do without faults.
                    share = succeeded / (case.rate * (took + Scaling.burst_s)) if case.rate else per_s / (free / 2)
                    figures = (succeeded, failed, f"{took:.1f}", f"{share:.0%}", f"{least:.0%}", refused, requests)
                    print(f"| {case.name} | {client} | {' | '.join(map(str, figures))} |", flush=True)
                    if client == "ours":
                        ours[case.name] = share, failed
        print()
        for name, (share, failed) in ours.items():
            _goals.at_least(f"{name}: goodput of ours", 100 * share, GOAL, " %")
            _goals.at_most(f"{name}: objects that ours failed to put", failed, 0)


if __name__ == "__main__":
    main()
