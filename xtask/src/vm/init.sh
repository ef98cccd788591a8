#!/bin/busybox sh
# The first and only process of a test guest: runs the agent once per hook, twice with the ends of calls looked at in the
# ways of kernels that refuse the first, and once as a user with four capabilities, beside a call that works, one to a resource that is not there, one to nobody, one
# to nowhere, and two programs that write lines, and prints what it saw in sections that the host reads.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
ip link set lo up
cd /lib/modules
for module in *.xz; do [ -e "$module" ] && unxz "$module"; done
for module in *.ko; do insmod "$module"; done
cd /

# An emulated processor is slow: within its budget the agent would leave connections out, whose calls then have no parents.
export KTRDR_AGENT_BUDGET__CPU=off

mkdir /tmp/www
echo hello >/tmp/www/index.html
httpd -p 127.0.0.1:8080 -h /tmp/www

# until_true SECONDS COMMAND…: waits for a condition with a deadline.
until_true() {
    left=$(($1 * 10))
    shift
    until "$@"; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 0.1
    done
}

# Hundredths of a second since the start of the guest.
hundredths() {
    cut -d' ' -f1 /proc/uptime | tr -d .
}

# The agent observes, or ended.
started() {
    grep -qs observing /tmp/log || ! kill -0 $agent 2>/dev/null
}

# listens PORT (as the kernel writes it)
listens() {
    cat /proc/net/tcp /proc/net/tcp6 | grep -q ":$1 0*:0000 0A"
}

# A process is watched from its first transfer on. These two get lines by network and write them, to a pipe and to a file.
# Their own input stays open and empty: at its end they would say goodbye.
mkfifo /tmp/quiet
exec 5<>/tmp/quiet
writers() {
    nc -l -p 8081 <&5 | cat >/dev/null &
    nc -l -p 8082 <&5 >/tmp/file &
    until_true 20 listens 1F91 && until_true 20 listens 1F92
    rm -f /tmp/to-pipe /tmp/to-file
    mkfifo /tmp/to-pipe /tmp/to-file
    nc 127.0.0.1 8081 </tmp/to-pipe &
    nc 127.0.0.1 8082 </tmp/to-file &
    exec 3>/tmp/to-pipe 4>/tmp/to-file
}
line() {
    echo "a line to a pipe: $1" >&3
    echo "a line to a file: $1" >&4
}

# as_user PROGRAM…: as nobody, with the capabilities of docs/privileges.md. Kernels before 5.11 count maps against the
# limit of locked memory, which the systemd unit lifts, too. By its path: busybox has a lesser one built in.
ulimit -l unlimited
as_user() {
    list=-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search
    exec /bin/setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=$list --ambient-caps=$list --bounding-set=$list "$@"
}

echo
echo "== check"
ktrdr-agent check
echo "== status $?"

for run in auto syscall every tracepoints user; do
    # What the run before said must not pass for what this one says.
    rm -f /tmp/log /tmp/spans /tmp/stats
    case $run in
        every | tracepoints) KTRDR_AGENT_CAPTURE__CALL_ENDS=$run ktrdr-agent run --console json --stats-out /tmp/stats >/tmp/spans 2>/tmp/log & ;;
        user) as_user ktrdr-agent run --no-socket --console json --stats-out /tmp/stats >/tmp/spans 2>/tmp/log & ;;
        *) ktrdr-agent run --hook "$run" --console json --stats-out /tmp/stats >/tmp/spans 2>/tmp/log & ;;
    esac
    agent=$!
    if until_true 60 started; then
        writers
        line first
        wget -q -O /dev/null http://127.0.0.1:8080/
        wget -q -O /dev/null http://127.0.0.1:8080/missing 2>/dev/null
        wget -q -O /dev/null http://127.0.0.1:9/ 2>/dev/null
        # There is no way to any address but this host's.
        wget -q -O /dev/null http://192.0.2.1:9/ 2>/dev/null
        until_true 20 grep -q connection_refused /tmp/spans
        until_true 20 grep -q network_unreachable /tmp/spans
        # What happened before these calls was read before, so the writers are watched.
        for n in 1 2 3; do line $n; done
        until_true 20 grep -q 'to a pipe: 3' /tmp/spans
        until_true 20 grep -q 'to a file: 3' /tmp/spans
        exec 3>&- 4>&-
        begin=$(hundredths)
        kill -INT $agent
    fi
    wait $agent
    took=$((($(hundredths) - begin) * 10))
    [ "$run" = user ] && echo "== user-check" && (as_user ktrdr-agent check)
    echo "== hook $run"
    echo "== took $took"
    echo "== log"
    cat /tmp/log
    echo "== spans"
    cat /tmp/spans
    echo "== stats"
    tr -d '\n' </tmp/stats
    echo
    echo "== end"
done
# Calls that carry the id of the request that caused them, on a real server; the host judges the spans.
if [ -d /app ]; then
    # Once: most of the time goes into compiling what is imported.
    python3 -c 'import aiohttp, fastapi, httpx, requests, uvicorn'
    python3 /app/backend.py 8001 &
    ktrdr-agent run --console off --spans-out /tmp/calls --stats-out /tmp/calls-stats --port 8000 --port 8001 2>/tmp/log &
    agent=$!
    until_true 120 grep -q observing /tmp/log
    python3 /app/app.py fastapi asyncio 8000 8001 2>/dev/null &
    app=$!
    accepts() { nc 127.0.0.1 8000 </dev/null 2>/dev/null; }
    until_true 120 accepts
    for case in async gather sync; do
        for in_flight in 1 10; do python3 /app/load.py 8000 $case $in_flight 20; done
    done
    kill -INT $agent
    wait $agent
    grep -E 'python causality|WARN|ERROR' /tmp/log
    tr -d '\n' </tmp/calls-stats
    echo
    # What a user with four capabilities sees of the same process.
    as_user ktrdr-agent run --no-socket --console off --port 8000 2>/tmp/user-log &
    agent=$!
    until_true 120 grep -q 'python causality: .*(pid' /tmp/user-log
    kill -INT $agent
    wait $agent
    kill $app
    wait $app
    echo "== user-python"
    cat /tmp/user-log
    echo "== python"
    gzip -c /tmp/calls | base64
    echo "== end"
fi
echo "== done"
poweroff -f
