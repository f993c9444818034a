"""Cookies of one run, kept apart by origin; no other cookie ever goes out.

RFC 6265 lets a cookie travel to other ports, to the other scheme and, by its Domain, to other
hosts. Here it goes back to the origin that set it and nowhere else; path, expiry and Secure hold
as the RFC says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from http.cookies import CookieError

import aiohttp

from transferd.model.origins import Origin, origin
from transferd.worker.request import Request

#: Cookies of more places than this are not kept. How many one place may set, and how large they
#: may be, is bounded by aiohttp's jar (180 of 4 KiB each, 8 KiB in one request).
ORIGINS = 16


class Cookies:
    """What the servers of one run set; in memory only."""

    def __init__(self) -> None:
        self._jars: dict[Origin, aiohttp.CookieJar] = {}

    def attach(self, request: Request) -> Request:
        """Return *request* with the cookies that are for it, after the owner's own ones."""
        jar = self._jars.get(origin(request.url))
        if jar is None:
            return request
        found = jar.filter_cookies(request.parsed).values()
        pairs = [f"{cookie.key}={cookie.coded_value}" for cookie in found]
        if not pairs:
            return request
        # There is one Cookie field in a request (RFC 6265 5.4).
        mine = [value for name, value in request.headers if name.lower() == "cookie"]
        rest = [field for field in request.headers if field[0].lower() != "cookie"]
        return replace(request, headers=(*rest, ("Cookie", "; ".join([*mine, *pairs]))))

    def take(self, url: str, lines: Iterable[str]) -> None:
        """Keep what the Set-Cookie *lines* of an answer to *url* say."""
        lines = list(lines)
        place = origin(url)
        if not lines or (place not in self._jars and len(self._jars) >= ORIGINS):
            return
        jar = self._jars.setdefault(place, _new_jar())
        jar.update_cookies_from_headers(lines, Request(url=url).parsed)
        for cookie in jar:
            # The jar would send a quoted value without its quotes; servers compare what they set.
            if cookie.value != cookie.coded_value:
                with contextlib.suppress(CookieError):
                    cookie.set(cookie.key, cookie.coded_value, cookie.coded_value)

    def forget(self, place: Origin) -> None:
        """Drop what *place* set."""
        self._jars.pop(place, None)

    def clear(self) -> None:
        """Drop everything."""
        for jar in self._jars.values():
            jar.clear()
        self._jars.clear()


def _new_jar() -> aiohttp.CookieJar:
    # "unsafe" lets hosts have cookies that are known by their address. Nothing is quoted anew.
    return aiohttp.CookieJar(unsafe=True, quote_cookie=False)
