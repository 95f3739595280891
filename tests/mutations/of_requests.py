"""Guards of what people ask for, and of what stands in files that others may write: plans, ages, records and notes."""

from tests.mutations.guard import Guard

RESTORES = "tests/security/test_borders.py::test_a_tampered_quarantine_restores_nothing"
CHANGED = "tests/test_plan_commands.py::test_a_plan_whose_inputs_changed_exits_with_3"
RUNS_AGAIN = "tests/backfill/test_skipping.py::test_change_runs_the_hour_again"

OF_REQUESTS = (
    Guard(
        "no sweep is asked for younger orphans than a day",
        "cli/sweeps.py",
        "    if age < YOUNGEST_ORPHAN:\n",
        "    if not age:\n",
        ("tests/test_sweep_commands.py::test_what_cannot_be_asked_for_exits_with_2",),
    ),
    Guard(
        "no lakehouse is set to younger orphans than a day",
        "config/maintenance.py",
        "        if value < YOUNGEST_ORPHAN:\n",
        "        if not value:\n",
        ("tests/config/test_lakehouse.py::test_what_is_refused_of_lakehouse_yaml",),
    ),
    Guard(
        "an hour ends at its deadline",
        "backfill/range.py",
        "            if deadline and time.monotonic() - worker.began > deadline.total_seconds():\n",
        "            if deadline and not worker.began:\n",
        ("tests/backfill/test_range.py::test_a_deadline_costs_an_hour",),
    ),
    Guard(
        "an hour whose source changed is not skipped",
        "backfill/plan.py",
        "committed.source != source,",
        "not committed.source,",
        (RUNS_AGAIN,),
    ),
    Guard(
        "an hour whose recipe changed is not skipped",
        "backfill/plan.py",
        "committed.recipe != recipe,",
        "not committed.recipe,",
        (RUNS_AGAIN,),
    ),
    Guard(
        "an hour whose files changed is not skipped",
        "backfill/plan.py",
        "or state.live != committed.seal.digest\n",
        "\n",
        (RUNS_AGAIN,),
    ),
    Guard(
        "a plan is of its hours' objects",
        "backfill/run_plan.py",
        "        if changed:\n",
        "        if changed is None:\n",
        (CHANGED,),
    ),
    Guard(
        "a plan is of its spec",
        "backfill/run_plan.py",
        "        if self.spec != spec_print(spec):\n",
        "        if not self.spec:\n",
        (CHANGED,),
    ),
    Guard(
        "a plan is of its engine",
        "backfill/run_plan.py",
        "        if self.engine != engine_print(lakehouse.engine):\n",
        "        if not self.engine:\n",
        (CHANGED,),
    ),
    Guard(
        "a plan runs no other hours",
        "backfill/run_plan.py",
        "        if others:\n",
        "        if others is None:\n",
        ("tests/test_plan_commands.py::test_hours_that_are_not_the_plans_exit_with_3",),
    ),
    Guard(
        "an attempt's files are where the table has, or had, its own",
        "iceberg/hourly.py",
        "        check_layout(self.table, attempt.layout)\n",
        "",
        ("tests/security/test_borders.py::test_a_tampered_marker_removes_nothing",),
    ),
    Guard(
        "what an attempt claims is in the table's folders",
        "iceberg/attempt_files.py",
        "        check_inside(self.target.locations, chain(put.named, put.data, put.metadata))\n",
        "",
        ("tests/security/test_borders.py::test_a_tampered_claim_removes_nothing",),
    ),
    Guard(
        "an attempt's id is one",
        "ledger/records.py",
        'AttemptId = Annotated[str, Field(pattern=f"^{ULID}$")]',
        "AttemptId = str",
        ("tests/security/test_borders.py::test_a_tampered_marker_removes_nothing",),
    ),
    Guard(
        "what a sweep moved is put back into the table's folders",
        "maintenance/quarantine.py",
        "                if not SPELLINGS.one_contains(folders, each.url):\n",
        "                if not each.url:\n",
        (RESTORES,),
    ),
    Guard(
        "what is put back is what a sweep has moved",
        "maintenance/quarantine.py",
        "            if wrong := next((each.to for each in batch.files if not _COPY.fullmatch(each.to)), None):\n",
        "            if wrong := next((each.to for each in batch.files if not each.to), None):\n",
        (RESTORES,),
    ),
    Guard(
        "a sweep's record is its own",
        "maintenance/quarantine.py",
        "        if record.sweep != sweep:\n",
        "        if not record.sweep:\n",
        (RESTORES,),
    ),
    Guard(
        "an expiry is finished from the table's own metadata",
        "maintenance/expiry.py",
        "        if base.uuid != now.uuid:\n",
        "        if not base.uuid:\n",
        ("tests/security/test_borders.py::test_an_expiry_is_not_finished_from_another_tables_metadata",),
    ),
    Guard(
        "the note of a manifest rewrite is one",
        "maintenance/manifests.py",
        "    if not _NOTE.fullmatch(turn.record.notes[NOTE]):\n",
        "    if not turn.record.notes[NOTE]:\n",
        ("tests/security/test_borders.py::test_a_tampered_note_of_a_manifest_rewrite_removes_nothing",),
    ),
)
