"""What the service may rely on when it asks for jobs, kept by the SQLite store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.store import (
    ALICE,
    BOB,
    NOW,
    Queue,
    credential,
    file_specs,
    header,
    later,
    open_queue,
    settings,
    spec,
    with_secrets,
)
from transferd.model.credentials import (
    Credential,
    CredentialLabel,
    NegotiateOptions,
    PassportOptions,
    Scheme,
    Secret,
    Target,
)
from transferd.model.errors import (
    BadRequest,
    Conflict,
    NotFound,
    VaultError,
)
from transferd.model.job import Job, JobId, JobSpec, Priority, Settings
from transferd.model.limits import Quota
from transferd.model.reports import Connected
from transferd.model.states import JobEvent, JobState

ID = "6f1c9a52-0d6e-4b1b-9b06-000000000001"
GONE = JobId("00000000-0000-4000-8000-00000000dead")


# ── making ───────────────────────────────────────────────────────────────────────────────────


async def test_a_new_job_is_what_was_asked_for(queue: Queue) -> None:
    """Every field of a record is there from the start (STYLE 2.6)."""
    wish = with_secrets(spec(2, start=False), credential())
    job = await queue.make(wish)
    assert job == Job(
        id=JobId("00000000-0000-4000-8000-000000000001"),
        owner=ALICE,
        type=wish.type,
        settings=wish.settings,
        state=JobState.SUSPENDED,
        files_total=2,
        files_transferred=0,
        bytes_total=None,
        bytes_transferred=0,
        credentials=(CredentialLabel(target=Target.SERVER, scheme=Scheme.BASIC, username="alice"),),
        error=None,
        error_count=0,
        created=NOW,
        modified=NOW,
        transferred_at=None,
    )
    assert await queue.jobs.job(job.id) == job


async def test_start_queues_a_job_and_needs_a_file(queue: Queue) -> None:
    """Start is a resume, and an empty job is not resumed (BITS 1.3, T2 and T3)."""
    assert (await queue.make(spec(1))).state is JobState.QUEUED
    with pytest.raises(Conflict) as refused:
        await queue.make(spec(0))
    assert refused.value.code == "job_empty"


async def test_a_job_without_files_has_no_bytes(queue: Queue) -> None:
    """The total is unknown only while the size of some file is."""
    assert (await queue.make(spec(0, start=False))).bytes_total == 0


async def test_jobs_are_made_all_or_none(queue: Queue) -> None:
    """One bad wish of many leaves nothing behind (DESIGN 5)."""
    with pytest.raises(Conflict):
        await queue.jobs.create(ALICE, [spec(), spec(0)], NOW, quota=Quota(jobs_per_user=10))
    assert not (await queue.jobs.jobs(owner=None, states=None, after=0, limit=10)).jobs


async def test_the_same_request_gives_the_same_job(queue: Queue) -> None:
    """A repeated request with the caller's id makes no second job (DESIGN 5)."""
    wish = replace(spec(job_id=ID), fingerprint=b"body")
    (first,) = await queue.jobs.create(ALICE, [wish], NOW, quota=Quota(jobs_per_user=1))
    (again,) = await queue.jobs.create(ALICE, [wish], later(5), quota=Quota(jobs_per_user=1))
    assert (first.new, again.new) == (True, False)
    assert again.job == first.job


async def test_repeated_requests_are_known_beforehand(queue: Queue) -> None:
    """What is checked before a job is made does not concern one that there is."""
    wish = replace(spec(job_id=ID), fingerprint=b"body")
    assert await queue.jobs.unmade(ALICE, [wish]) == (wish,)
    await queue.make(wish)
    other = spec()
    assert await queue.jobs.unmade(ALICE, [wish, other]) == (other,)


@pytest.mark.parametrize(
    ("owner", "fingerprint"), [(ALICE, b"other"), (BOB, b"body"), (BOB, b"other")]
)
async def test_an_id_belongs_to_one_request(queue: Queue, owner: int, fingerprint: bytes) -> None:
    """Another body, or another owner, is refused and told nothing of the job."""
    await queue.make(replace(spec(job_id=ID), fingerprint=b"body"))
    with pytest.raises(Conflict) as refused:
        await queue.make(replace(spec(job_id=ID), fingerprint=fingerprint), owner=owner)
    assert refused.value.code == "id_used"
    with pytest.raises(Conflict, match="another request has used this id"):
        await queue.jobs.unmade(owner, [replace(spec(job_id=ID), fingerprint=fingerprint)])


@pytest.mark.parametrize("event", [JobEvent.COMPLETE, JobEvent.CANCEL])
async def test_the_id_of_a_job_that_has_left_is_not_used_again(
    queue: Queue, event: JobEvent
) -> None:
    """A request repeated after the end does not fetch everything once more."""
    await queue.apply((await queue.make(spec(job_id=ID))).id, event)
    with pytest.raises(Conflict) as refused:
        await queue.make(spec(job_id=ID))
    assert refused.value.code == "id_used"
    with pytest.raises(Conflict, match="it has left the queue"):
        await queue.jobs.unmade(ALICE, [spec(job_id=ID)])


async def test_a_user_has_a_limited_number_of_jobs(queue: Queue) -> None:
    """The limit counts one user's jobs, those that were just asked for among them."""
    with pytest.raises(Conflict) as refused:
        await queue.jobs.create(ALICE, [spec(), spec(), spec()], NOW, quota=Quota(jobs_per_user=2))
    assert refused.value.code == "too_many_jobs"
    (_, second) = await queue.jobs.create(
        ALICE, [spec(), spec()], NOW, quota=Quota(jobs_per_user=2)
    )
    await queue.jobs.create(BOB, [spec()], NOW, quota=Quota(jobs_per_user=2))
    await queue.apply(second.job.id, JobEvent.CANCEL)
    await queue.jobs.create(ALICE, [spec()], NOW, quota=Quota(jobs_per_user=2))


async def test_two_files_of_one_job_have_two_destinations(queue: Queue) -> None:
    """One destination would be written twice; the refusal names it."""
    twice = replace(spec(), files=file_specs(2) + file_specs(1))
    with pytest.raises(Conflict, match="/home/alice/0") as refused:
        await queue.make(twice)
    assert refused.value.code == "duplicate_destination"


# ── finding and listing ──────────────────────────────────────────────────────────────────────


async def test_a_job_that_is_not_there_is_not_found(queue: Queue) -> None:
    """Every question and every change says the same of a job that has left."""
    for attempt in (
        queue.jobs.job(GONE),
        queue.jobs.files(GONE, after=-1, limit=1),
        queue.jobs.open_files(GONE, 1),
        queue.jobs.add_files(GONE, file_specs(1), NOW, files_per_job=9, quota=Quota()),
        queue.jobs.change_settings(GONE, lambda now: now, NOW),
        queue.jobs.set_credentials(GONE, [credential()], NOW),
        queue.jobs.remove_credential(GONE, Target.SERVER, Scheme.BASIC, NOW),
        queue.jobs.secrets(GONE, NOW),
        queue.jobs.apply(GONE, JobEvent.RESUME, NOW),
        queue.report(GONE, Connected()),
        queue.jobs.mark_published(GONE, [0]),
        queue.done(GONE),
    ):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.code == "job_not_found"


async def test_pages_follow_the_order_of_creation(queue: Queue) -> None:
    """A walk along the cursors meets every job once, oldest first."""
    made = [(await queue.make()).id for _ in range(5)]
    met: list[JobId] = []
    after: int | None = 0
    while after is not None:
        page = await queue.jobs.jobs(owner=None, states=None, after=after, limit=2)
        met += [job.id for job in page.jobs]
        after = page.next
    assert met == made


async def test_a_page_of_long_jobs_is_short(queue: Queue) -> None:
    """Whoever asks for a thousand long ones keeps nobody else waiting, and misses none."""
    long = replace(settings(), notify_command=("/bin/true", "x" * 3900))
    made = [(await queue.make(replace(spec(), settings=long))).id for _ in range(100)]
    met: list[JobId] = []
    sizes: list[int] = []
    after: int | None = 0
    while after is not None:
        page = await queue.jobs.jobs(owner=ALICE, states=None, after=after, limit=1000)
        met += [job.id for job in page.jobs]
        sizes.append(len(page.jobs))
        after = page.next
    assert met == made
    assert 50 < sizes[0] < 70
    assert len(sizes) == 2


async def test_a_cursor_never_skips_a_job(queue: Queue) -> None:
    """A number is not given again when the newest jobs leave the queue."""
    _, second, third = [await queue.make() for _ in range(3)]
    page = await queue.jobs.jobs(owner=None, states=None, after=0, limit=2)
    for job in (second, third):
        await queue.apply(job.id, JobEvent.CANCEL)
    newest = await queue.make()
    assert page.next is not None
    rest = await queue.jobs.jobs(owner=None, states=None, after=page.next, limit=9)
    assert [job.id for job in rest.jobs] == [newest.id]


async def test_a_list_is_narrowed_by_owner_and_states(queue: Queue) -> None:
    """Filters hold together, and the order stays that of creation."""
    queued = await queue.make()
    await queue.make(owner=BOB)
    waiting = await queue.make(spec(start=False))
    running = await queue.make()
    await queue.apply(running.id, JobEvent.DISPATCH)
    third = await queue.make()

    async def ids(owner: int | None, *states: JobState) -> list[JobId]:
        page = await queue.jobs.jobs(
            owner=owner, states=frozenset(states) or None, after=0, limit=9
        )
        return [job.id for job in page.jobs]

    assert await ids(ALICE) == [queued.id, waiting.id, running.id, third.id]
    assert await ids(ALICE, JobState.QUEUED, JobState.CONNECTING) == [
        queued.id,
        running.id,
        third.id,
    ]
    assert await ids(None, JobState.SUSPENDED) == [waiting.id]
    assert await ids(None, JobState.CANCELLED) == []


async def test_counts_follow_the_jobs(queue: Queue) -> None:
    """Health asks for them all the time, so they are kept rather than counted."""
    first = await queue.make()
    await queue.make(spec(start=False), owner=BOB)
    await queue.apply(first.id, JobEvent.DISPATCH)
    left = await queue.make()
    await queue.apply(left.id, JobEvent.CANCEL)
    counts = await queue.jobs.counts()
    assert {state: number for state, number in counts.items() if number} == {
        JobState.CONNECTING: 1,
        JobState.SUSPENDED: 1,
    }


# ── settings and secrets ─────────────────────────────────────────────────────────────────────


async def test_settings_are_replaced_in_one_transaction(queue: Queue) -> None:
    """The change sees the newest settings, and the schedule follows the new priority."""
    job = await queue.make()

    def change(now: Settings) -> Settings:
        return replace(now, name=now.name + "!", priority=Priority.FOREGROUND)

    changed = await queue.jobs.change_settings(job.id, change, later(9))
    assert changed.settings == replace(settings(), name="a job!", priority=Priority.FOREGROUND)
    assert changed.modified == later(9)
    assert not await queue.runnable(Priority.NORMAL, 9)
    assert await queue.runnable(Priority.FOREGROUND, 9) == [job.id]


async def test_a_refused_change_of_settings_changes_nothing(queue: Queue) -> None:
    """What the change raises comes through, and the job is as before."""
    job = await queue.make()

    def refuse(now: Settings) -> Settings:
        raise BadRequest("too_long", f"cannot rename {now.name}")

    with pytest.raises(BadRequest):
        await queue.jobs.change_settings(job.id, refuse, later(9))
    assert await queue.jobs.job(job.id) == job


async def test_secrets_come_back_as_they_were_set(queue: Queue) -> None:
    """Passwords and headers survive sealing; a newer one takes the place of the older."""
    job = await queue.make(
        with_secrets(spec(), credential("old"), headers=(header("X-Key", "k\u00e4se"),))
    )
    await queue.jobs.set_credentials(
        job.id, [credential("new"), credential("other", Scheme.DIGEST)], later(1)
    )
    secrets = await queue.jobs.secrets(job.id, NOW)
    assert {each.scheme: each.password.reveal() for each in secrets.credentials} == {
        Scheme.BASIC: "new",
        Scheme.DIGEST: "other",
    }
    assert [(each.name, each.value.reveal()) for each in secrets.headers] == [
        ("X-Key", "k\u00e4se")
    ]


async def test_a_credential_knows_how_old_it_is(queue: Queue) -> None:
    """Seconds since it was set, or set again; a clock that was set back makes none negative."""
    job = await queue.make(with_secrets(spec(), credential("a"), credential("b", Scheme.DIGEST)))
    await queue.jobs.set_credentials(job.id, [credential("c")], later(30))

    async def ages(after: float) -> dict[Scheme, float]:
        secrets = await queue.jobs.secrets(job.id, later(after))
        return {each.scheme: each.age for each in secrets.credentials}

    assert await ages(90.5) == {Scheme.BASIC: 60.5, Scheme.DIGEST: 90.5}
    assert await ages(-5) == {Scheme.BASIC: 0, Scheme.DIGEST: 0}


async def test_the_implicit_identity_is_kept_replaced_and_removed_like_any_other(
    queue: Queue,
) -> None:
    """BITS.md A3, A9: it is a credential without a user."""
    implicit = Credential(
        target=Target.SERVER, scheme=Scheme.NEGOTIATE, username=None, password=Secret("")
    )
    job = await queue.make(with_secrets(spec(), implicit))
    assert job.credentials == (implicit.label,)
    (kept,) = (await queue.jobs.secrets(job.id, NOW)).credentials
    assert (kept.implicit, len(kept.password)) == (True, 0)
    named = await queue.jobs.set_credentials(job.id, [credential("s", Scheme.NEGOTIATE)], later(1))
    assert [label.username for label in named.credentials] == ["alice"]
    again = await queue.jobs.set_credentials(job.id, [implicit], later(2))
    assert again.credentials == (implicit.label,)
    gone = await queue.jobs.remove_credential(job.id, Target.SERVER, Scheme.NEGOTIATE, later(3))
    assert gone.credentials == ()


async def test_how_schemes_are_spoken_survives_the_disk(tmp_path: Path) -> None:
    """Groups of settings come back as they were given."""
    options = NegotiateOptions(spn="HTTP/w", keytab="/k", principal="a", ccache="KCM:", ntlm=True)
    passport = PassportOptions(configuration_url="https://n/", login_host="l", realm="r")
    kept = replace(settings(), negotiate=options, passport=passport)
    async with open_queue(tmp_path / "state") as queue:
        job = await queue.make(replace(spec(), settings=kept))
    async with open_queue(tmp_path / "state") as queue:
        assert (await queue.jobs.job(job.id)).settings == kept


async def test_a_credential_can_be_removed_once(queue: Queue) -> None:
    """Removing what is not there is told apart from success."""
    job = await queue.make(with_secrets(spec(), credential()))
    after = await queue.jobs.remove_credential(job.id, Target.SERVER, Scheme.BASIC, later(1))
    assert after.credentials == ()
    with pytest.raises(NotFound) as refused:
        await queue.jobs.remove_credential(job.id, Target.SERVER, Scheme.BASIC, later(1))
    assert refused.value.code == "credential_not_found"


async def test_no_secret_lies_in_the_state_directory(queue: Queue, tmp_path: Path) -> None:
    """Promise 5: neither a password nor a digest to guess it by is in any file."""
    fingerprint = b"0123456789abcdef-of-the-request"
    wish = with_secrets(spec(), credential("hunter2"), headers=(header("X-Key", "s3cr3t"),))
    await queue.make(replace(wish, fingerprint=fingerprint))
    found = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert b"alice" in found
    for secret in (b"hunter2", b"s3cr3t", fingerprint):
        assert secret not in found


async def test_a_wiped_secret_is_stored_whole_when_its_caller_was_cancelled(queue: Queue) -> None:
    """Secrets are sealed before the operation waits: nobody can seal an emptied one."""
    job = await queue.make()
    secret = credential("hunter2")
    setting = asyncio.ensure_future(queue.jobs.set_credentials(job.id, [secret], NOW))
    await asyncio.sleep(0)
    setting.cancel()
    secret.password.wipe()
    await queue.jobs.forget_strays([])
    (kept,) = (await queue.jobs.secrets(job.id, NOW)).credentials
    assert kept.password.reveal() == "hunter2"


async def test_a_lost_key_leaves_the_queue_usable(tmp_path: Path) -> None:
    """Old secrets say what is missing, new ones work, and both do once the key is back."""
    state = tmp_path / "state"
    async with open_queue(state) as queue:
        old = await queue.make(with_secrets(spec(), credential("old")))
    (state / "vault.key").rename(tmp_path / "kept.key")
    async with open_queue(state) as queue:
        new = await queue.make(with_secrets(spec(job_id=ID), credential("new")))
        with pytest.raises(VaultError, match="put the key file back"):
            await queue.jobs.secrets(old.id, NOW)
        await queue.apply(old.id, JobEvent.SUSPEND)
    (tmp_path / "kept.key").rename(state / "vault.key")
    async with open_queue(state) as queue:
        for job, password in ((old, "old"), (new, "new")):
            (kept,) = (await queue.jobs.secrets(job.id, NOW)).credentials
            assert kept.password.reveal() == password


async def test_the_implicit_identity_outlives_every_key(tmp_path: Path) -> None:
    """It has no secret: a key that is lost or replaced keeps nobody from using it."""
    state = tmp_path / "state"
    implicit = Credential(
        target=Target.SERVER, scheme=Scheme.NEGOTIATE, username=None, password=Secret("")
    )
    async with open_queue(state) as queue:
        job = await queue.make(with_secrets(spec(), implicit))
    (state / "vault.key").unlink()
    async with open_queue(state) as queue:
        assert (state / "vault.key").exists()  # nothing is lost that a stand-in would wait for
        (kept,) = (await queue.jobs.secrets(job.id, NOW)).credentials
        assert (kept.implicit, len(kept.password)) == (True, 0)


def test_a_wish_shows_no_secret() -> None:
    """Promise 5 for what the tests themselves print."""
    wish: JobSpec = with_secrets(spec(), credential("hunter2"), headers=(header("X", "s3cr3t"),))
    assert "hunter2" not in repr(wish)
    assert "s3cr3t" not in repr(wish)
