"""Resident memory of the server, along millions of requests."""

from harness import results
from harness.goals import Goal
from harness.serving.load import UNSKEW, Drive, Failed, Request, drive, wrong
from harness.serving.repository import WITH_COMPONENT

CONNECTIONS = 64
STEPS = 10
# What the memory may differ by from after the first step to after the last.
FLAT = 1.1


def run(context) -> tuple[list[str], list[Goal], list[str]]:
    """Sends the requests in steps, and looks at the server's memory between them."""
    bench, target = context.bench, context.bench.targets[UNSKEW]
    request = Request(WITH_COMPONENT, 1, context.size.entities)
    each = context.size.requests // STEPS
    resident = [target.server.running.resident_mib()]
    sent = [0]
    error = None
    for step in range(1, STEPS + 1):
        try:
            with bench.others.watched():
                outcome = drive(
                    bench.load, Drive(target, request, CONNECTIONS, requests=each, seconds=0)
                )
            error = wrong(outcome)
        except Failed as reason:
            error = str(reason)
        if error is not None:
            print(f"  {error}", flush=True)
            break
        resident.append(target.server.running.resident_mib())
        sent.append(step * each)
        rate = outcome["per_second"]
        print(f"  {sent[-1]:>12,} requests  {resident[-1]:8.1f} MiB  {rate:,.0f}/s", flush=True)
    pairs = zip(sent, resident, strict=True)
    rows = [[f"{count:,}", f"{mib:.1f}"] for count, mib in pairs]
    table = results.markdown(["after requests", "resident MiB"], rows)
    return [table], [goal(resident, sent, error)], []


def goal(resident: list[float], sent: list[int], error: str | None) -> Goal:
    """Flat: what was needed after the first step is enough for all."""
    text = "resident memory is flat (within 10 % of after the first tenth)"
    if error is not None:
        return Goal(text, f"failed: {error}", False)
    first, last = resident[1], resident[-1]
    measured = f"{first:.1f} MiB after {sent[1]:,} requests, {last:.1f} MiB after {sent[-1]:,}"
    return Goal(text, measured, last <= first * FLAT)
