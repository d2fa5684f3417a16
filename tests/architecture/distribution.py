"""What keeps the schema ready for a PostgreSQL of several nodes, checked on one.

On several nodes a row lives where the hash of one column sends it, so the database can hold a key
unique, follow a foreign key or lock a row only where that column is part of it, and may run a
statement once per node. Each table names its column in `info["dist"]`, or says `reference` (a copy
on every node) or `local` (on the coordinator alone). Both functions return complaints, in words.
"""

import re
from collections.abc import Iterator, Mapping

from sqlalchemy import ForeignKeyConstraint, MetaData, Table, UniqueConstraint

EVERYWHERE, COORDINATOR = "reference", "local"


def spread(metadata: MetaData) -> dict[str, str]:
    """The tables that are cut into pieces, and the column that cuts them."""
    found = {name: table.info.get("dist") for name, table in metadata.tables.items()}
    whole = (None, EVERYWHERE, COORDINATOR)
    return {name: dist for name, dist in found.items() if dist not in whole}


# ---- tables -------------------------------------------------------------------------------------


def complaints_about_tables(metadata: MetaData) -> list[str]:
    """Everything about the tables that several nodes could not hold."""
    return [
        f"{table.name}: {complaint}"
        for table in metadata.sorted_tables
        for complaint in _about_table(table)
    ]


def _about_table(table: Table) -> Iterator[str]:
    dist = table.info.get("dist")
    if dist is None:
        yield 'says nothing about where its rows live: info["dist"]'
        return
    for key in table.foreign_key_constraints:
        yield from _about_reference(dist, key)
    if dist in (EVERYWHERE, COORDINATOR):
        return
    if dist not in table.c:
        yield f"is spread by {dist}, which it does not have"
        return
    if table.c[dist].nullable:
        yield f"{dist} may be null, and null has no node"
    if dist not in table.primary_key.columns:
        yield f"the primary key leaves out {dist}"
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint) and dist not in constraint.columns:
            yield f"unique ({', '.join(constraint.columns.keys())}) leaves out {dist}"
    for index in table.indexes:
        if index.unique and dist not in {column.name for column in index.columns}:
            yield f"unique index {index.name} leaves out {dist}"


def _about_reference(dist: str, key: ForeignKeyConstraint) -> Iterator[str]:
    there = key.referred_table
    theirs = there.info.get("dist")
    if theirs == EVERYWHERE:
        return
    if dist == EVERYWHERE:
        yield f"is copied everywhere and refers to {there.name}, which is not"
    elif theirs == COORDINATOR and dist != COORDINATOR:
        yield f"refers to {there.name}, which stays on the coordinator"
    elif theirs != COORDINATOR and dist == COORDINATOR:
        yield f"stays on the coordinator and refers to {there.name}, which is spread"
    elif theirs != COORDINATOR:
        pairs = {(element.parent.name, element.column.name) for element in key.elements}
        if (dist, theirs) not in pairs:
            yield f"refers to {there.name} without pairing {dist} with {theirs}"


# ---- statements ---------------------------------------------------------------------------------

_VOLATILE = r"\b(random|clock_timestamp|statement_timestamp|gen_random_uuid|nextval|setval)\s*\("
_CLOCK = r"\b(now\s*\(|transaction_timestamp|localtimestamp|current_(timestamp|date|time)\b)"


def complaints_about_statement(sql: str, cut: Mapping[str, str]) -> list[str]:
    """Everything about one statement that several nodes refuse, or run badly; `cut` as `spread`."""
    text = _plain(sql)
    touched = {table for table in cut if re.search(rf"\b{table}\b", text)}
    return list(_about_statement(text, {table: cut[table] for table in touched})) if touched else []


def _plain(sql: str) -> str:
    """Lower case, on one line, without comments, the contents of strings and quoted names."""
    sql = re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL)
    sql = re.sub(r"'(?:[^']|'')*'", "''", sql)
    return " ".join(sql.replace('"', "").lower().split())


def _about_statement(text: str, cut: Mapping[str, str]) -> Iterator[str]:
    pinned = any(
        re.search(rf"\b{column} ?(=|in) ?(\$|\?|%|:|''|any|\()", text) for column in cut.values()
    )
    if re.search(r"\bas (not )?(materialized )?\( ?(insert|update|delete)\b", text):
        yield "changes rows inside a WITH"
    if re.match(r"merge\b", text):
        yield "MERGE"
    if re.search(r"\bcreate (or replace )?(constraint )?trigger\b", text):
        yield "a trigger"
    if not pinned and re.search(r"\bfor (no key )?(update|share)\b|\bfor key share\b", text):
        yield "locks rows on several nodes"
    if not pinned and re.search(r"\bgrouping sets\b|\b(rollup|cube) ?\(", text):
        yield "subtotals across users"
    if not pinned and re.search(r"\bwith recursive\b", text):
        yield "recursion across users"
    yield from _about_insert(text, cut)
    yield from _about_assignments(text, cut)
    yield from _about_indexes(text, cut)
    yield from _about_joins(text, cut)


def _about_insert(text: str, cut: Mapping[str, str]) -> Iterator[str]:
    into = re.search(r"\binsert (?:or \w+ )?into (\w+)(?: as \w+)? ?\(([^)]*)\)", text)
    if into is None or into[1] not in cut:
        return
    column = cut[into[1]]
    if column not in {name.strip() for name in into[2].split(",")}:
        yield f"inserts into {into[1]} without {column}"
    target = re.search(r"\bon conflict ?\(([^)]*)\)", text)
    if target is not None and column not in {name.strip() for name in target[1].split(",")}:
        yield f"settles a conflict in {into[1]} without {column}"


def _about_assignments(text: str, cut: Mapping[str, str]) -> Iterator[str]:
    upsert = re.search(r"\bdo update set (.*)", text)
    change = upsert or re.match(r"update (?:only )?\w+(?: as \w+)? set (.*)", text)
    if change is not None:
        body = re.split(r" where | returning ", change[1])[0]
        for column in set(cut.values()):
            if re.search(rf"(^|, ?){column} ?=", body):
                yield f"moves a row to another node by changing {column}"
        if re.search(_VOLATILE, body):
            yield "sets what differs from node to node"
        if upsert is not None and re.search(_CLOCK, body):
            yield "asks a node for the time in DO UPDATE; pass it in"
    if re.match(r"(update|delete)\b", text):
        condition = text.partition(" where ")[2]
        if re.search(_VOLATILE, condition):
            yield "chooses rows by what differs from node to node"


def _about_indexes(text: str, cut: Mapping[str, str]) -> Iterator[str]:
    index = re.search(r"\bcreate unique index\b.*? on (?:only )?(\w+)[^(]*\(([^)]*)\)", text)
    if index is not None and index[1] in cut and cut[index[1]] not in index[2]:
        yield f"a unique index on {index[1]} without {cut[index[1]]}"


def _about_joins(text: str, cut: Mapping[str, str]) -> Iterator[str]:
    named = re.findall(r"\b(?:from|join) (\w+)", text)
    if sum(name in cut for name in named) < 2:
        return
    ends = r"(?= where | group | order | join | left | inner | returning | limit |$)"
    for there, condition in re.findall(rf"\bjoin (\w+)(?: as \w+| \w+)? on (.*?){ends}", text):
        if there in cut and cut[there] not in condition:
            yield f"joins {there} on something else than {cut[there]}"
