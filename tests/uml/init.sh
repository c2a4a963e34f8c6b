#!/bin/bash
# PID 1 of the machine that boot.py starts: cgroup2 with the memory controller, tmpfs where tests write, then pytest.
# The root folder is the host's, so nothing is written outside the tmpfs mounts.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /dev/shm /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t devpts pts /dev/pts
mount -t cgroup2 none /sys/fs/cgroup
echo "+memory +pids" > /sys/fs/cgroup/cgroup.subtree_control
"$RG_PYTHON" -c 'import socket; socket.sethostname("uml")'
ip link set lo up
sh "$RG_ROOT/tests/open_root.sh"

mkdir /tmp/home  # not /tmp itself: what tests write there is no part of anybody's home
export HOME=/tmp/home PYTHONDONTWRITEBYTECODE=1 TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd "$RG_ROOT" || exit
echo "tests begin"
# shellcheck disable=SC2086  # words, as given to make
"$RG_PYTHON" -m pytest -q -p no:cacheprovider -o faulthandler_timeout=600 ${RG_TESTS//,/ }  # one processor, a slow one
echo "pytest ended with $?"
exec "$RG_PYTHON" -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'  # power off: reboot(2)
