"""The provider as a C library that drops in for Microsoft's DLL: both generations, headers, pkg-config files.

``signatures`` is the one table of functions; ``c_source`` makes C of it around ``glue.c``; ``build`` compiles and installs;
``calls`` answers at run time, inside ``guard``, with ``pointers``, ``late_numpy`` and ``log``; a host process
imports nothing else of it. The headers in ``include`` are written by hand, and the compiler holds the table against them.
"""
