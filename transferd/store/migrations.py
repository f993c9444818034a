"""The schema of the queue file, as numbered steps; a step that was released is never changed.

Step N brings a file of schema N-1 to schema N. Times are microseconds since the epoch, or seconds
of the steady clock where the column is REAL.
"""

from __future__ import annotations

from typing import Final

_FIRST: Final = """
CREATE TABLE jobs (
    -- Order of creation and cursor of the list; never used twice, or a cursor could skip a job.
    number            INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Found by way of job_ids.
    id                TEXT    NOT NULL,
    owner             INTEGER NOT NULL,
    fingerprint       BLOB    NOT NULL,
    type              TEXT    NOT NULL,
    state             INTEGER NOT NULL CHECK (state BETWEEN 0 AND 6),
    -- Copy of the one in settings, for the index.
    priority          INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 3),
    -- The same of where the job may go.
    cost              INTEGER NOT NULL CHECK (cost BETWEEN 0 AND 5),
    -- Order of queueing, over all priorities.
    position          INTEGER NOT NULL,
    -- Whether a worker ever had the job: only then can there be temporary files.
    dispatched        INTEGER NOT NULL DEFAULT 0 CHECK (dispatched IN (0, 1)),
    settings          TEXT    NOT NULL,
    -- About how many bytes its rows take, but for the settings.
    weight            INTEGER NOT NULL DEFAULT 0 CHECK (weight >= 0),
    -- Sums over the job's files, kept by the transaction that changes those.
    files_total       INTEGER NOT NULL DEFAULT 0 CHECK (files_total >= 0),
    files_transferred INTEGER NOT NULL DEFAULT 0
                      CHECK (files_transferred BETWEEN 0 AND files_total),
    sizes_unknown     INTEGER NOT NULL DEFAULT 0
                      CHECK (sizes_unknown BETWEEN 0 AND files_total),
    bytes_known       INTEGER NOT NULL DEFAULT 0 CHECK (bytes_known >= 0),
    bytes_transferred INTEGER NOT NULL DEFAULT 0 CHECK (bytes_transferred >= 0),
    error             TEXT,
    error_count       INTEGER NOT NULL DEFAULT 0,
    created           INTEGER NOT NULL,
    modified          INTEGER NOT NULL,
    transferred_at    INTEGER,
    attempts          INTEGER NOT NULL DEFAULT 0,
    retry_at          REAL,
    retry_delay       REAL    NOT NULL DEFAULT 0,
    retry_here        INTEGER NOT NULL DEFAULT 0,
    active_seconds    REAL    NOT NULL DEFAULT 0,
    stuck_seconds     REAL    NOT NULL DEFAULT 0
) STRICT;

-- Numbers by ids, of the jobs that have left the queue too: theirs are not used again. Ids are in
-- no order, so that a change here is a page for each; numbers stand for them everywhere else, and
-- what happens to jobs together is written side by side.
CREATE TABLE job_ids (
    id  TEXT    PRIMARY KEY NOT NULL,
    job INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER jobs_named AFTER INSERT ON jobs BEGIN
    INSERT INTO job_ids (id, job) VALUES (new.id, new.number);
END;

CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_owner ON jobs (owner, state);
CREATE INDEX jobs_by_modified ON jobs (modified);
CREATE INDEX jobs_queued ON jobs (priority, owner, cost, position) WHERE state = 0;
CREATE INDEX jobs_waiting ON jobs (retry_at) WHERE state = 5 AND retry_at IS NOT NULL;
-- By when the wait began: in the future only after the clock of an earlier start was ahead.
CREATE INDEX jobs_waiting_since ON jobs (retry_at - retry_delay)
    WHERE state = 5 AND retry_at IS NOT NULL;

-- How many jobs each owner has in each state, and how many bytes their files have as far as that is
-- known, so that nobody ever counts them. Sums stop where integers do: no server's lie is an error.
CREATE TABLE tallies (
    owner INTEGER NOT NULL,
    state INTEGER NOT NULL,
    jobs  INTEGER NOT NULL CHECK (jobs >= 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (owner, state)
) STRICT, WITHOUT ROWID;

-- One row: the same over all owners and states.
CREATE TABLE machine (
    jobs  INTEGER NOT NULL CHECK (jobs >= 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0)
) STRICT;
INSERT INTO machine (jobs, bytes) VALUES (0, 0);

CREATE TRIGGER jobs_made AFTER INSERT ON jobs BEGIN
    INSERT INTO tallies (owner, state, jobs, bytes)
        VALUES (new.owner, new.state, 1, new.bytes_known)
        ON CONFLICT DO UPDATE
        SET jobs = jobs + 1, bytes = min(bytes + excluded.bytes, 9223372036854775807);
    UPDATE machine
        SET jobs = jobs + 1, bytes = min(bytes + new.bytes_known, 9223372036854775807);
END;
CREATE TRIGGER jobs_moved AFTER UPDATE OF state, owner, bytes_known ON jobs
WHEN old.state <> new.state OR old.owner <> new.owner OR old.bytes_known <> new.bytes_known BEGIN
    UPDATE tallies SET jobs = jobs - 1, bytes = max(bytes - old.bytes_known, 0)
        WHERE owner = old.owner AND state = old.state;
    INSERT INTO tallies (owner, state, jobs, bytes)
        VALUES (new.owner, new.state, 1, new.bytes_known)
        ON CONFLICT DO UPDATE
        SET jobs = jobs + 1, bytes = min(bytes + excluded.bytes, 9223372036854775807);
    UPDATE machine
        SET bytes = max(min(bytes - old.bytes_known + new.bytes_known, 9223372036854775807), 0)
        WHERE old.bytes_known <> new.bytes_known;
END;
CREATE TRIGGER jobs_gone AFTER DELETE ON jobs BEGIN
    UPDATE tallies SET jobs = jobs - 1, bytes = max(bytes - old.bytes_known, 0)
        WHERE owner = old.owner AND state = old.state;
    UPDATE machine SET jobs = jobs - 1, bytes = max(bytes - old.bytes_known, 0);
END;

-- About how many bytes of this file are each user's: jobs and strays, and notices.
CREATE TABLE shares (
    owner     INTEGER PRIMARY KEY,
    stored    INTEGER NOT NULL DEFAULT 0 CHECK (stored >= 0),
    told      INTEGER NOT NULL DEFAULT 0 CHECK (told >= 0),
    -- Number of the last notice that was forgotten for want of room.
    forgotten INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TRIGGER jobs_stored AFTER INSERT ON jobs BEGIN
    INSERT INTO shares (owner, stored) VALUES (new.owner, new.weight + length(new.settings))
        ON CONFLICT DO UPDATE SET stored = stored + excluded.stored;
END;
CREATE TRIGGER jobs_weighed AFTER UPDATE OF owner, weight, settings ON jobs BEGIN
    UPDATE shares SET stored = stored - old.weight - length(old.settings) WHERE owner = old.owner;
    INSERT INTO shares (owner, stored) VALUES (new.owner, new.weight + length(new.settings))
        ON CONFLICT DO UPDATE SET stored = stored + excluded.stored;
END;
CREATE TRIGGER jobs_unstored AFTER DELETE ON jobs BEGIN
    UPDATE shares SET stored = stored - old.weight - length(old.settings) WHERE owner = old.owner;
END;

-- One row: the last position that was given.
CREATE TABLE positions (last INTEGER NOT NULL) STRICT;
INSERT INTO positions (last) VALUES (0);

CREATE TABLE files (
    job               INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    file              INTEGER NOT NULL CHECK (file >= 0),
    remote            TEXT    NOT NULL,
    local             TEXT    NOT NULL,
    checksum          TEXT,
    total             INTEGER CHECK (total >= 0),
    offset            INTEGER NOT NULL DEFAULT 0 CHECK (offset >= 0),
    -- Bytes behind the first hole, as JSON; NULL where there are none.
    parts             TEXT,
    validator         TEXT,
    -- Unsigned numbers of 64 bits, kept as signed ones.
    device            INTEGER,
    inode             INTEGER,
    -- Nanoseconds; NULL where the file system does not say.
    born              INTEGER,
    completed         INTEGER NOT NULL DEFAULT 0 CHECK (completed IN (0, 1)),
    published         INTEGER NOT NULL DEFAULT 0 CHECK (published IN (0, 1)),
    length_unverified INTEGER NOT NULL DEFAULT 0 CHECK (length_unverified IN (0, 1)),
    PRIMARY KEY (job, file)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX files_by_local ON files (job, local);
CREATE INDEX files_open ON files (job, file) WHERE completed = 0;
CREATE INDEX files_unpublished ON files (job, file) WHERE completed = 1 AND published = 0;

CREATE TABLE credentials (
    job      INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    target   TEXT    NOT NULL,
    scheme   TEXT    NOT NULL,
    -- NULL: whoever the owner is already; nothing is sealed then.
    username TEXT,
    sealed   BLOB    NOT NULL,
    given    INTEGER NOT NULL,
    PRIMARY KEY (job, target, scheme)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER credentials_stored AFTER INSERT ON credentials BEGIN
    UPDATE jobs SET weight = weight + length(new.sealed) + 512 WHERE number = new.job;
END;
CREATE TRIGGER credentials_weighed AFTER UPDATE OF sealed ON credentials
WHEN length(old.sealed) <> length(new.sealed) BEGIN
    UPDATE jobs SET weight = weight - length(old.sealed) + length(new.sealed)
        WHERE number = new.job;
END;
CREATE TRIGGER credentials_unstored AFTER DELETE ON credentials BEGIN
    UPDATE jobs SET weight = weight - length(old.sealed) - 512 WHERE number = old.job;
END;

-- By the name of the key that has sealed them.
CREATE INDEX credentials_by_key ON credentials (substr(sealed, 2, 8)) WHERE username IS NOT NULL;

-- All headers of a job as one sealed text.
CREATE TABLE headers (
    job    INTEGER PRIMARY KEY REFERENCES jobs (number) ON DELETE CASCADE,
    sealed BLOB    NOT NULL
) STRICT;

CREATE TRIGGER headers_stored AFTER INSERT ON headers BEGIN
    UPDATE jobs SET weight = weight + length(new.sealed) WHERE number = new.job;
END;
CREATE TRIGGER headers_unstored AFTER DELETE ON headers BEGIN
    UPDATE jobs SET weight = weight - length(old.sealed) WHERE number = old.job;
END;

CREATE INDEX headers_by_key ON headers (substr(sealed, 2, 8));

-- Keys of the fingerprints of jobs, sealed.
CREATE TABLE markers (
    number INTEGER PRIMARY KEY,
    sealed BLOB    NOT NULL,
    -- Numbers of the first and the last job whose fingerprint may be made with it; no last one:
    -- it makes new ones.
    first  INTEGER NOT NULL,
    last   INTEGER
) STRICT;

CREATE TABLE notices (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       INTEGER NOT NULL,
    owner      INTEGER NOT NULL,
    -- The number of the job; its row may be gone by now…
    job        INTEGER NOT NULL,
    -- …and the job as it was.
    snapshot   TEXT    NOT NULL,
    file       INTEGER,
    created    INTEGER NOT NULL,
    settled    INTEGER NOT NULL CHECK (settled IN (0, 1)),
    deliveries INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX notices_by_owner ON notices (owner);
CREATE INDEX notices_by_job ON notices (job);
CREATE INDEX notices_by_created ON notices (created);
CREATE INDEX notices_open ON notices (number) WHERE settled = 0;
CREATE INDEX notices_open_by_owner ON notices (owner) WHERE settled = 0;
CREATE INDEX notices_open_by_job ON notices (job) WHERE settled = 0;

CREATE TRIGGER notices_told AFTER INSERT ON notices BEGIN
    INSERT INTO shares (owner, told) VALUES (new.owner, length(new.snapshot) + 256)
        ON CONFLICT DO UPDATE SET told = told + excluded.told;
END;
CREATE TRIGGER notices_moved AFTER UPDATE OF owner, snapshot ON notices BEGIN
    UPDATE shares SET told = told - length(old.snapshot) - 256 WHERE owner = old.owner;
    INSERT INTO shares (owner, told) VALUES (new.owner, length(new.snapshot) + 256)
        ON CONFLICT DO UPDATE SET told = told + excluded.told;
END;
CREATE TRIGGER notices_gone AFTER DELETE ON notices BEGIN
    UPDATE shares SET told = told - length(old.snapshot) - 256 WHERE owner = old.owner;
END;

-- Jobs that have left the queue.
CREATE TABLE ended (
    number   INTEGER PRIMARY KEY,
    id       TEXT    NOT NULL,
    owner    INTEGER NOT NULL,
    ended_at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER ended_forgotten AFTER DELETE ON ended BEGIN
    DELETE FROM job_ids WHERE id = old.id;
END;

CREATE INDEX ended_by_time ON ended (ended_at);

-- Temporary files of jobs that have left the queue.
CREATE TABLE strays (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    owner     INTEGER NOT NULL,
    temporary TEXT    NOT NULL
) STRICT;

CREATE TRIGGER strays_stored AFTER INSERT ON strays BEGIN
    INSERT INTO shares (owner, stored) VALUES (new.owner, length(new.temporary) + 64)
        ON CONFLICT DO UPDATE SET stored = stored + excluded.stored;
END;
CREATE TRIGGER strays_gone AFTER DELETE ON strays BEGIN
    UPDATE shares SET stored = stored - length(old.temporary) - 64 WHERE owner = old.owner;
END;
"""

#: SQL scripts; the schema number of a file is how many of them it has seen.
MIGRATIONS: Final[tuple[str, ...]] = (_FIRST,)
