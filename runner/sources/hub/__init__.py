"""Files of a Hub repository, brought whole and verified into the user's own Hub cache."""

import dataclasses
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from runner import files as on_disk
from runner.errors import StepError
from runner.files import human_bytes
from runner.sources.hub import repo as hub_repo
from runner.sources.hub.cache import Cache, is_right
from runner.sources.hub.choice import names, wanted
from runner.sources.hub.errors import (
    AGAIN,
    PASSING,
    TRIES,
    explained,
    insist,
    is_offline,
    refusals,
    status,
)
from runner.sources.hub.repo import COMMIT, File, Source
from runner.sources.hub.transfer import Transfer
from runner.sources.hub.workers import Workers
from runner.sources.pace import rest
from runner.stage import Context

__all__ = ["Source", "bring", "missing", "pin", "reach", "wanted"]


def pin(source: Source) -> Source:
    """The source with its commit: what the revision stands for now, or did when last fetched."""
    commit = source.commit or (source.revision if COMMIT.fullmatch(source.revision) else None)
    if commit is not None and not COMMIT.fullmatch(commit):
        raise StepError(f'"{commit}" is no commit: it must be 40 digits of 0-9a-f.')
    if commit is not None:
        return dataclasses.replace(source, commit=commit)
    with explained(source):
        hub_repo.check_name(source)
        known = Cache.of(source).commit_of(source.revision)

        def ask() -> str:
            try:
                return hub_repo.commit_of(source)
            except refusals() as error:
                if known and status(error) is None:
                    return known  # there is no network
                raise

        return dataclasses.replace(source, commit=insist(ask))


def bring(source: Source, context: Context) -> Path:
    """The folder with every wanted file of the commit, each with the bytes the repository lists."""
    source = pin(source)
    with explained(source):
        hub_repo.check_name(source)
        cache = Cache.of(source)
        stock = Stock(source, cache, context)
        files, trouble = _listed(source, cache, stock, context)
        chosen = wanted(files, source)
        missing = stock.missing(chosen)
        if missing and trouble:
            raise _without(missing, trouble)
        if trouble and not is_offline():
            context.note(f"{trouble.fact} {source.repo} is used as it is in the Hub cache.")
        if missing:
            _fetch(missing, cache, source, context)
        for file in chosen:
            cache.link(file, str(source.commit))
        _keep_commit(source, cache)
        return cache.snapshot(source.commit)


def reach(source: Source) -> int:
    """Bytes of the wanted files; StepError where `bring` could not bring them.

    The Hub is asked for the listing and for the head of one file, and for neither where all is in
    the cache. A commit's listing never changes, so one that is remembered counts.
    """
    source = pin(source)
    with explained(source):
        hub_repo.check_name(source)
        cache, commit = Cache.of(source), str(source.commit)
        known = cache.listing(commit) or cache.seen(commit)
        files = hub_repo.checked(known, source) or insist(lambda: hub_repo.listing(source))
        if not known:
            cache.keep_listing(files, commit)
        chosen = wanted(files, source)
        if lacking := _absent(chosen, cache, commit):
            _ask_for(lacking[0], source)
            _check_room(lacking, cache, source)
        return sum(file.size for file in chosen)


def _ask_for(file: File, source: Source) -> None:
    """Raise where this user may not have a file; trouble of the Hub's own may be over by then."""
    try:
        insist(lambda: hub_repo.head(source, file.path), tries=2)
    except refusals() as error:
        if status(error) not in PASSING:
            raise


def missing(source: Source) -> int | None:
    """Bytes of the wanted files that are not in the cache by name and size; None: nobody knows."""
    cache, commit = Cache.of(source), str(source.commit)
    listed = cache.listing(commit)
    if source.commit is None or listed is None:
        return None
    chosen = wanted(hub_repo.checked(listed, source), source)
    return sum(file.size for file in _absent(chosen, cache, commit))


def _absent(files: Sequence[File], cache: Cache, commit: str) -> list[File]:
    """Those that are not in the cache with the size that they have."""
    return [
        file
        for file in files
        if not (path := cache.find(file, commit)) or path.stat().st_size != file.size
    ]


class Stock:
    """Which files of a commit are in the cache with the right bytes; each is read once."""

    def __init__(self, source: Source, cache: Cache, context: Context) -> None:
        self._source, self._cache, self._context = source, cache, context
        self._seen: dict[File, bool] = {}

    def missing(self, files: Sequence[File]) -> list[File]:
        """Those that are not there, or damaged, which is said."""
        new = [file for file in files if file not in self._seen and self._find(file)]
        workers = Workers(self._context, sum(file.size for file in new))

        def look(file: File) -> None:
            path = self._find(file)
            self._seen[file] = path is not None and is_right(path, file, workers.halt_here)
            if not self._seen[file]:
                workers.note(
                    f"{file.path} in the Hub cache has other bytes than {self._source.repo} lists"
                )
            workers.count(file.size, received=False)

        workers.run(look, new)
        return [file for file in files if not self._seen.get(file)]

    def _find(self, file: File) -> Path | None:
        return self._cache.find(file, self._source.commit)


def _listed(
    source: Source, cache: Cache, stock: Stock, context: Context
) -> tuple[list[File], StepError | None]:
    """All files of the commit, from the Hub; from memory (and why) where it does not tell.

    It is asked even if all is there, once: that is how a bad token or a lost repository shows.
    """
    commit = str(source.commit)
    known = hub_repo.checked(cache.listing(commit) or [], source)
    whole = known and not stock.missing(wanted(known, source))
    try:
        with explained(source):
            wait = partial(rest, context)
            files = insist(lambda: hub_repo.listing(source), 1 if whole else TRIES, wait)
    except StepError as trouble:
        files = known or cache.seen(commit)
        if not files:
            raise
        return files, trouble
    cache.keep_listing(files, commit)
    return files, None


def _fetch(missing: Sequence[File], cache: Cache, source: Source, context: Context) -> None:
    """Download them, each content once and the largest first."""
    cache.prepare()
    contents = {file.digest: file for file in missing}.values()
    _check_room(contents, cache, source)
    workers = Workers(context, sum(file.size for file in contents))
    transfer = Transfer(source, cache, workers)
    workers.run(transfer.bring, sorted(contents, key=lambda file: -file.size))


def _check_room(files: Collection[File], cache: Cache, source: Source) -> None:
    """Refuse a download that the disk cannot hold, before its first byte."""
    begun = {file: (on_disk.seen(cache.partial(file)) or (0,))[0] for file in files}
    needed = sum(file.size - min(file.size, begun[file]) for file in files)
    if lacking := on_disk.shortage(cache.folder, needed):
        raise StepError(
            f"{source.repo} {lacking} That is the Hub cache: make room, or name a folder on "
            "another disk:",
            f"HF_HOME=FOLDER {AGAIN}",
        )


def _keep_commit(source: Source, cache: Cache) -> None:
    """Let the revision's name find the commit, unless by now it stands for another one."""
    commit, known = str(source.commit), cache.commit_of(source.revision)
    if source.revision == commit or known == commit:
        return
    with suppress(*refusals(), StepError):  # a name, not a file: the fetch is good without it
        if known is None or hub_repo.commit_of(source) == commit:
            cache.keep_commit(source.revision, commit)


def _without(missing: Sequence[File], trouble: StepError) -> StepError:
    """What was in the way, and what is missing because of it."""
    size = human_bytes(sum(file.size for file in missing))
    return StepError(
        f"{trouble.fact} Not in the Hub cache: {names(missing)} ({size}).", trouble.command
    )
