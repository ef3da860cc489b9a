/* floor BUNDLE: what a container costs at the least. A bare program that makes the same container as an OCI runtime does
 * of runc's default configuration, without reading one and without caring for anything that may go wrong: the same
 * namespaces, cgroups, mounts, devices, masked paths, capabilities and limits, then /bin/true in BUNDLE/rootfs, waited
 * for, and the cgroups removed. Nothing here is to be used for anything but to compare. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(call) do { if ((call) < 0) { perror(#call); _exit(1); } } while (0)

static const char *controllers[] = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "unified"};
#define CONTROLLERS (sizeof controllers / sizeof *controllers)
static char cgroup[64];

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (write(fd, text, strlen(text)) < 0) { /* as with a controller that is not there */ }
    close(fd);
}

/* The text of a file, at most size - 1 bytes. */
static void get(const char *path, char *text, int size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC), count = fd < 0 ? 0 : read(fd, text, size - 1);
    text[count > 0 ? count : 0] = 0;
    if (fd >= 0) close(fd);
}

static void enter_cgroups(pid_t pid) {
    char path[256], from[256], text[256], number[16];
    snprintf(number, sizeof number, "%d", pid);
    for (unsigned i = 0; i < CONTROLLERS; i++) {
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", controllers[i], cgroup);
        if (mkdir(path, 0755) < 0 && errno != EEXIST) continue;
        if (!strcmp(controllers[i], "cpuset")) {
            for (int which = 0; which < 2; which++) {
                const char *file = which ? "cpuset.mems" : "cpuset.cpus";
                snprintf(from, sizeof from, "/sys/fs/cgroup/cpuset/%s", file);
                get(from, text, sizeof text);
                snprintf(path, sizeof path, "/sys/fs/cgroup/cpuset/%s/%s", cgroup, file);
                put(path, text);
            }
        }
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s/cgroup.procs", controllers[i], cgroup);
        put(path, number);
    }
    static const char *rules[] = {"a *:* rwm", "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
                                  "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"};
    for (unsigned i = 0; i < sizeof rules / sizeof *rules; i++) {
        snprintf(path, sizeof path, "/sys/fs/cgroup/devices/%s/devices.%s", cgroup, i ? "allow" : "deny");
        put(path, rules[i]);
    }
}

static void leave_cgroups(void) {
    char path[256];
    for (unsigned i = 0; i < CONTROLLERS; i++) {
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", controllers[i], cgroup);
        rmdir(path);
    }
}

static void devices(void) {
    static const struct { const char *name; int major, minor; } nodes[] = {
        {"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7}, {"dev/tty", 5, 0}, {"dev/random", 1, 8}, {"dev/urandom", 1, 9}};
    for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        CHECK(mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
        CHECK(chmod(nodes[i].name, 0666));
        CHECK(chown(nodes[i].name, 0, 0));
    }
    static const char *links[][2] = {{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
                                     {"/proc/self/fd/2", "dev/stderr"}, {"/proc/kcore", "dev/core"}, {"pts/ptmx", "dev/ptmx"}};
    for (unsigned i = 0; i < sizeof links / sizeof *links; i++) CHECK(symlink(links[i][0], links[i][1]));
}

static void mount_at(const char *source, const char *kind, const char *at, unsigned long flags, const char *data) {
    if (mkdir(at, 0755) < 0 && errno != EEXIST) { perror(at); _exit(1); }
    if (mount(source, at, kind, flags, data) < 0) { perror(at); _exit(1); }
}

static void mounts(void) {
    unsigned long plain = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    mount_at("proc", "proc", "proc", 0, NULL);
    mount_at("tmpfs", "tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    mount_at("devpts", "devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    mount_at("shm", "tmpfs", "dev/shm", plain, "mode=1777,size=65536k");
    mount_at("mqueue", "mqueue", "dev/mqueue", plain, NULL);
    mount_at("sysfs", "sysfs", "sys", plain | MS_RDONLY, NULL);
    mount_at("tmpfs", "tmpfs", "sys/fs/cgroup", plain, "mode=755");
    for (unsigned i = 0; i < CONTROLLERS; i++) {
        char at[64], data[64];
        snprintf(at, sizeof at, "sys/fs/cgroup/%s", controllers[i]);
        snprintf(data, sizeof data, i == 8 ? "none,name=%s" : "%s", controllers[i]);
        if (i == 9) mount_at("cgroup2", "cgroup2", at, plain | MS_RDONLY, NULL);
        else mount_at("cgroup", "cgroup", at, plain | MS_RDONLY, data);
    }
    CHECK(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | plain | MS_RDONLY, NULL));
}

static void hide(void) {
    static const char *masked[] = {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                                   "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"};
    for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++)
        if (mount("/dev/null", masked[i], NULL, MS_BIND, NULL) < 0 && errno == ENOTDIR)
            CHECK(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, NULL));
    static const char *readonly[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    for (unsigned i = 0; i < sizeof readonly / sizeof *readonly; i++) {
        if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL) < 0) continue;
        CHECK(mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL));
    }
}

static void privileges(void) {
    unsigned keep = 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE | 1u << CAP_AUDIT_WRITE;
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (cap > 31 || !(keep & 1u << cap)) CHECK(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0));
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{keep, keep, 0}, {0, 0, 0}};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(syscall(SYS_capset, &header, data));
    struct rlimit files = {1024, 1024};
    CHECK(setrlimit(RLIMIT_NOFILE, &files));
}

static int container(const char *rootfs, int go) {
    char byte;
    CHECK(read(go, &byte, 1));
    CHECK(unshare(CLONE_NEWCGROUP));
    CHECK(setsid());
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
    CHECK(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL));
    CHECK(chdir(rootfs));
    mounts();
    devices();
    CHECK(sethostname("floor", 5));
    CHECK(syscall(SYS_pivot_root, ".", "."));
    CHECK(umount2(".", MNT_DETACH));
    CHECK(chdir("/"));
    hide();
    CHECK(mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
    privileges();
    char *words[] = {"/bin/true", NULL}, *environment[] = {"PATH=/bin", "TERM=xterm", NULL};
    execve(words[0], words, environment);
    perror("exec");
    return 1;
}

int main(int count, char **words) {
    if (count != 2) { fprintf(stderr, "usage: floor BUNDLE\n"); return 2; }
    char rootfs[4096];
    int go[2], status;
    snprintf(rootfs, sizeof rootfs, "%s/rootfs", words[1]);
    snprintf(cgroup, sizeof cgroup, "floor-%d", getpid());
    CHECK(pipe2(go, O_CLOEXEC));
    struct clone_args how = {.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET, .exit_signal = SIGCHLD};
    pid_t pid = syscall(SYS_clone3, &how, sizeof how);
    CHECK(pid);
    if (pid == 0) _exit(container(rootfs, go[0]));
    enter_cgroups(pid);
    CHECK(write(go[1], "", 1));
    CHECK(waitpid(pid, &status, 0));
    leave_cgroups();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
