#!/bin/busybox sh
# A test guest's first process: brings its network device up and then does what it is told, line by line, on the second
# serial port. After each line it says `status N`. A failure here ends the guest, and its console has the reason.
set -eu
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmp /tmp
for module in /modules/*; do insmod "$module"; done

# What it sends where asked to: nothing that could come from elsewhere.
head -c 1048576 /dev/urandom >/tmp/data
# Whoever sends it something by TCP gets that back, once all of it is there.
cat >/bin/mirror <<'END'
#!/bin/sh
heard=$(mktemp)
cat >"$heard"
cat "$heard"
rm "$heard"
END
chmod +x /bin/mirror
ip link set lo up
ip link set eth0 up
nc -ll -p 7 -e /bin/mirror </dev/null &

stty -F /dev/ttyS1 raw -echo 115200
exec </dev/ttyS1 >/dev/ttyS1 2>&1
set +eu
echo ready
while read -r line; do
    eval "$line" </dev/null
    echo "status $?"
done
