"""A laboratory: how does a background download behave beside other traffic at a bottleneck?

    python -m tests.lab [--cells PATTERN…] [--tools NAME,NAME…] [--runs N] [--lanes N]
                        [--output DIR] [--add]
    python -m tests.lab.summary [DIR] [--tools NAME,NAME…]

It builds a small internet of network namespaces (`tests.lab.topology`), in which a router has a
slow interface with a buffer, lets people download and browse in it, beside transferd's jobs and
beside what is used in its place (`tests.lab.scenarios`), and counts every 50 ms what has arrived
for whom and how long an echo takes. `--list` tells all cells, of which a part is measured where no
pattern is given: that takes 75 minutes for each run, 11 of them for each tool, and half a minute a
cell. Medians go into `lab.json` and `lab.md`, the first run of each cell over time into a picture.
Which of two flows wins a full buffer is a matter of luck: ask for five runs. `--lanes` plays so
many runs at once, each in a process and networks of its own; those at 1 Gbit/s need the machine,
and are played alone in the end. `--add` keeps what `lab.json` holds of other cells and other tools;
a summary prints what a README shows of it.

It takes root, `ip` and `tc` of iproute2, `nsenter` and `setpriv` of util-linux, a kernel with
veth, tun, sch_tbf and TCP's cubic and bbr (netem is not needed), curl, aria2c, wget2, nginx and
squid, the extras `test` and `bench`, and at most 10 GiB of memory in /dev/shm for 1 Gbit/s.
Networks are gone with the process, in whatever way it ends; a process that is killed leaves its
files in /dev/shm and /tmp.

How it is made:

- The bottleneck is on the router's interface towards the client, a token bucket with a burst of a
  millisecond. Offloads stay on, as between real machines, and packets of several segments pass
  whole; so that they are short beside the buffer, the server's interface has a `gso_max_segs` of
  half a millisecond at the link's rate.
- The time of the round trip is all on the way from the client to the server, in a process that
  holds packets of a TUN interface: few and small ones flow there.
- TCP may use 256 MiB at both ends, so that autotuning is never what limits; what a connection has
  learned of the path is not kept for the next one. Foreground and background have addresses of
  their own at the server, and by those its congestion control.
- Where a proxy is in between, it runs in the home, behind the bottleneck, with the buffers of a
  machine that nobody has tuned; what the background has is then what comes through the bottleneck
  for nobody else, and what the proxy hands over is shown beside it.
- Figures count bytes at the client's interfaces, behind the bottleneck, with a header for each
  packet as the kernel merges them: a full link shows between 95.6 and 98 % of its rate.
"""
