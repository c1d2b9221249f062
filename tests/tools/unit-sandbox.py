"""Runs the program of a systemd unit under the unit's restrictions without systemd: in bubblewrap,
with a system call filter from the unit's own settings.

usage: unit-sandbox.py UNIT BINARY STATE CONFIGURATION [--deny CALL]... [--] [ARGUMENT...]

STATE and CONFIGURATION become the unit's directories, and BINARY its program. ARGUMENT... replace
those in ExecStart=. NOTIFY_SOCKET and the sockets of LISTEN_FDS are passed on. An unknown directive
is an error, so that every directive of the unit is tested or listed here as an exception.
"""

import errno
import os
import pathlib
import resource
import shlex
import socket
import subprocess
import sys

import seccomp
from seccomp import ALLOW, EQ, ERRNO, MASKED_EQ, Arg

PROT_WRITE, PROT_EXEC, SHM_EXEC = 0x2, 0x4, 0o100000
CLONE_NEW = 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x00020000 | 0x00000080
SUID_SGID = 0o6000

# Settings unrelated to the sandbox, or that only a manager can apply.
MANAGERS = """Type ExecReload Restart RestartSec RestartPreventExitStatus TimeoutStartSec TimeoutStopSec WatchdogSec
    MemoryMax MemorySwapMax""".split()
# Settings without an equivalent here: kernel interfaces in /proc and the keyring are not hidden;
# the namespace removes IPC objects.
WITHOUT_EQUIVALENT = "ProcSubset KeyringMode RemoveIPC ProtectClock ProtectKernelLogs ProtectKernelModules".split()


def service(path):
    """Returns the directives of the [Service] section, each with its values in order."""
    directives, section = {}, None
    for line in pathlib.Path(path).read_text().splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif line and line[0] not in "#;" and section == "[Service]":
            name, _, value = line.partition("=")
            directives.setdefault(name, []).append(value)
    return directives


def group(name):
    """Returns the system calls of a group, as systemd defines it."""
    listing = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True)
    calls = set()
    for line in listing.stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            calls |= group(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return calls


def allowed(lines):
    """Returns the calls of an allow list and of @default, as systemd.exec(5) allows them."""
    calls = group("@default")
    assert lines and not lines[0].startswith("~"), "the first SystemCallFilter= is not an allow list"
    for line in lines:
        is_removed = line.startswith("~")
        for word in line.removeprefix("~").split():
            named = group(word) if word.startswith("@") else {word}
            calls = calls - named if is_removed else calls | named
    return calls


class Filter:
    """A system call filter that denies with the error of SystemCallErrorNumber= by default."""

    def __init__(self, refusal):
        self.filter, self.refusal = seccomp.SyscallFilter(ERRNO(refusal)), refusal
        self.conditions, self.without = {}, {}

    def only(self, calls, *alternatives):
        """Allows these calls only with arguments that match one of the alternatives."""
        for call in calls.split():
            self.conditions[call] = alternatives

    def never(self, calls, refusal):
        for call in calls.split():
            self.without[call] = refusal

    def allow(self, calls):
        for call in sorted(calls):
            number = seccomp.resolve_syscall(seccomp.Arch(), call)
            if number < 0:
                continue  # of another architecture
            if call in self.without:
                if self.without[call] != self.refusal:
                    self.filter.add_rule(ERRNO(self.without[call]), call)
                continue
            for conditions in self.conditions.get(call, [()]):
                self.filter.add_rule(ALLOW, call, *conditions)


def restrict(unit, calls):
    """Returns the filter for all directives about system calls."""
    [refusal] = unit.pop("SystemCallErrorNumber")
    rules = Filter(getattr(errno, refusal))
    assert unit.pop("SystemCallArchitectures") == ["native"]  # the default of libseccomp
    [families] = unit.pop("RestrictAddressFamilies")
    rules.only("socket", *[[Arg(0, EQ, int(getattr(socket, family)))] for family in families.split()])
    if unit.pop("MemoryDenyWriteExecute") == ["yes"]:
        rules.only("mmap", [Arg(2, MASKED_EQ, PROT_EXEC, 0)], [Arg(2, MASKED_EQ, PROT_WRITE, 0)])
        rules.only("mprotect pkey_mprotect", [Arg(2, MASKED_EQ, PROT_EXEC, 0)])
        rules.only("shmat", [Arg(2, MASKED_EQ, SHM_EXEC, 0)])
    if unit.pop("RestrictNamespaces") == ["yes"]:
        rules.only("clone unshare", [Arg(0, MASKED_EQ, CLONE_NEW, 0)])
        rules.never("setns", errno.EPERM)
        rules.never("clone3", errno.ENOSYS)
    if unit.pop("RestrictSUIDSGID") == ["yes"]:
        rules.only("chmod fchmod mkdir mknod creat", [Arg(1, MASKED_EQ, SUID_SGID, 0)])
        rules.only("fchmodat mkdirat mknodat", [Arg(2, MASKED_EQ, SUID_SGID, 0)])
        rules.only("open", [Arg(1, MASKED_EQ, os.O_CREAT, 0)], [Arg(2, MASKED_EQ, SUID_SGID, 0)])
        rules.only("openat", [Arg(2, MASKED_EQ, os.O_CREAT, 0)], [Arg(3, MASKED_EQ, SUID_SGID, 0)])
        rules.never("openat2", errno.ENOSYS)
    if unit.pop("LockPersonality") == ["yes"]:
        rules.only("personality", [Arg(0, EQ, 0)], [Arg(0, EQ, 0xFFFFFFFF)])
    if unit.pop("RestrictRealtime") == ["yes"]:
        assert "sched_setscheduler" not in calls, "sched_setscheduler is allowed, and this program cannot restrict it"
    rules.allow(calls)
    return rules.filter


def size(text):
    return int(text.removesuffix("M")) << 20 if text.endswith("M") else int(text)


def box(unit, binary, state, configuration):
    """Returns bubblewrap's arguments for all directives about namespaces and mounts."""
    arguments = ["bwrap", "--die-with-parent", "--new-session"]
    add = lambda *words: arguments.extend(map(str, words))
    assert unit.pop("DynamicUser") == unit.pop("PrivateUsers") == ["yes"]
    add("--unshare-user", "--uid", 61184, "--gid", 61184)
    # A read-only root with only the files that the program needs: ProtectSystem=strict and
    # ProtectHome=.
    assert unit.pop("ProtectSystem") == ["strict"] and unit.pop("ProtectHome") == ["yes"]
    for directory in ["lib", "lib64", "libx32", "lib32"]:
        if os.path.islink(f"/{directory}"):
            add("--symlink", os.readlink(f"/{directory}"), f"/{directory}")
            add("--ro-bind-try", f"/usr/{directory}", f"/usr/{directory}")
        else:
            add("--ro-bind-try", f"/{directory}", f"/{directory}")
    add("--ro-bind", "/bin/sh", "/usr/bin/sh", "--ro-bind", binary, "/usr/bin/keyhole")
    add("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--ro-bind", "/sys", "/sys")
    [state_name], [configuration_name] = unit.pop("StateDirectory"), unit.pop("ConfigurationDirectory")
    os.chmod(state, int(unit.pop("StateDirectoryMode")[0], 8))
    add("--bind", state, f"/var/lib/{state_name}", "--ro-bind", configuration, f"/etc/{configuration_name}")
    assert unit.pop("PrivateTmp") == unit.pop("PrivateDevices") == ["yes"]
    add("--tmpfs", "/tmp", "--tmpfs", "/var/tmp", "--dev", "/dev")
    assert unit.pop("ProtectProc") == ["invisible"] and unit.pop("ProtectKernelTunables") == ["yes"]
    add("--unshare-pid", "--proc", "/proc")
    assert unit.pop("ProtectControlGroups") == unit.pop("ProtectHostname") == ["yes"]
    add("--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
    assert unit.pop("CapabilityBoundingSet") == unit.pop("AmbientCapabilities") == [""]
    assert unit.pop("NoNewPrivileges") == ["yes"]  # bubblewrap always sets it
    add("--cap-drop", "ALL")
    if notify := os.environ.get("NOTIFY_SOCKET"):
        add("--bind", os.path.dirname(notify), "/run/systemd")
        add("--setenv", "NOTIFY_SOCKET", f"/run/systemd/{os.path.basename(notify)}")
    add("--remount-ro", "/")
    return arguments


def main():
    path, binary, state, configuration, *rest = sys.argv[1:]
    denied = set()
    while rest[:1] == ["--deny"]:
        denied.add(rest[1])
        rest = rest[2:]
    unit = service(path)
    program, *arguments = shlex.split(unit.pop("ExecStart")[0])
    if rest[:1] == ["--"]:
        arguments = rest[1:]
    calls = allowed(unit.pop("SystemCallFilter"))
    assert denied <= calls, f"{denied - calls} are not in the allow list"
    rules = restrict(unit, calls - denied)
    command = box(unit, binary, state, configuration)
    for name, limit in [("NOFILE", "LimitNOFILE"), ("CORE", "LimitCORE"), ("MEMLOCK", "LimitMEMLOCK")]:
        kind, value = getattr(resource, f"RLIMIT_{name}"), size(unit.pop(limit)[0])
        _, most = resource.getrlimit(kind)
        # An unprivileged user can only raise it to the hard limit.
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))
    os.umask(int(unit.pop("UMask")[0], 8))
    for name in MANAGERS + WITHOUT_EQUIVALENT:
        unit.pop(name, None)
    assert not unit, f"unknown directives: {sorted(unit)}"
    filter_fd = os.memfd_create("rules", 0)
    with open(os.dup(filter_fd), "wb") as file:
        rules.export_bpf(file)
    os.lseek(filter_fd, 0, os.SEEK_SET)
    os.set_inheritable(filter_fd, True)
    # The process has another PID in the namespace.
    run = ["/usr/bin/sh", "-c", '[ -z "$LISTEN_FDS" ] || export LISTEN_PID=$$; exec "$@"', "sh", program]
    command += ["--seccomp", str(filter_fd), "--", *run, *arguments]
    os.execvp(command[0], command)


main()
