/* Becomes PROGRAM in the cgroup INTO, both given when this is compiled: what a daemon starts by name is accounted apart. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    (void)argc;
    int procs = open(INTO "/cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (procs < 0 || write(procs, "0", 1) != 1) {
        perror(INTO);
        return 126;
    }
    argv[0] = PROGRAM;
    execv(PROGRAM, argv);
    perror(PROGRAM);
    return 127;
}
