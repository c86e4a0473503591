"""Huge pages for the arrays of a training step on CPUs.

Transforms and transposed copies of large arrays miss the processor's table of 4 KB pages
(`benchmarks/huge_pages.py` measures what that costs). glibc asks the kernel for pages of 2 MB if a
tunable says so before a program starts; it changes nothing where the kernel gives them to all
programs, or to none.
"""

import os
import platform
import sys

TUNABLES, HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def start_again() -> None:
    """Start this program again, in its own process, with huge pages; return where that is no use.

    It is none without glibc, and where the environment has GLIBC_TUNABLES, which stay as they are:
    an empty one turns this off. For programs alone: a caller's process would be started again, too.
    """
    if TUNABLES in os.environ or platform.libc_ver()[0] != "glibc" or not sys.executable:
        return
    os.environ[TUNABLES] = HUGE_PAGES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
