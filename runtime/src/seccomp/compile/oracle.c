/* Has libseccomp compile profiles for a test: reads them from stdin, writes programs to stdout.
 *
 *   P default_action arch...        begins a profile; architectures as libseccomp's own tokens
 *   R action name count [index op a b]...
 *   N name                          asks whether it knows the call ("1" or "0"), and its x32 number
 *   E                               ends it: "length\n" and the program follow, or "error what\n"
 *
 * The declarations are those of libseccomp 2.5, so that its headers need not be installed. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef void *scmp_filter_ctx;
struct scmp_arg_cmp {
    unsigned int arg;
    int op;
    uint64_t datum_a;
    uint64_t datum_b;
};
extern scmp_filter_ctx seccomp_init(uint32_t action);
extern void seccomp_release(scmp_filter_ctx ctx);
extern int seccomp_arch_add(scmp_filter_ctx ctx, uint32_t arch);
extern int seccomp_arch_remove(scmp_filter_ctx ctx, uint32_t arch);
extern uint32_t seccomp_arch_native(void);
extern int seccomp_syscall_resolve_name(const char *name);
extern int seccomp_syscall_resolve_name_arch(uint32_t arch, const char *name);
extern int seccomp_rule_add_array(scmp_filter_ctx ctx, uint32_t action, int call, unsigned int count,
                                  const struct scmp_arg_cmp *args);
extern int seccomp_export_bpf(scmp_filter_ctx ctx, int fd);

int main(void) {
    char line[4096], name[256];
    scmp_filter_ctx ctx = NULL;
    int failed = 0;
    while (fgets(line, sizeof line, stdin)) {
        char *at = line + 1;
        if (line[0] == 'P') {
            uint32_t action = strtoul(at, &at, 0), arch;
            ctx = seccomp_init(action);
            failed = ctx ? 0 : 1;
            int native = 0;
            while ((arch = strtoul(at, &at, 0)) != 0) {
                if (arch == seccomp_arch_native()) native = 1;
                else if (seccomp_arch_add(ctx, arch) != 0) failed = 2;
            }
            if (!native && !failed) seccomp_arch_remove(ctx, seccomp_arch_native());
        } else if (line[0] == 'R') {
            uint32_t action = strtoul(at, &at, 0);
            int used = 0;
            if (sscanf(at, " %255s%n", name, &used) != 1) return 1;
            at += used;
            unsigned int count = strtoul(at, &at, 0);
            struct scmp_arg_cmp args[6];
            for (unsigned int i = 0; i < count && i < 6; i++) {
                args[i].arg = strtoul(at, &at, 0);
                args[i].op = strtol(at, &at, 0);
                args[i].datum_a = strtoull(at, &at, 0);
                args[i].datum_b = strtoull(at, &at, 0);
            }
            int call = seccomp_syscall_resolve_name(name);
            if (call == -1) { fprintf(stderr, "unknown %s\n", name); continue; }
            int rc = seccomp_rule_add_array(ctx, action, call, count, args);
            if (rc != 0 && rc != -17 /* the same rule again */) { failed = rc; fprintf(stderr, "%s: %d\n", name, rc); }
        } else if (line[0] == 'N') {
            if (sscanf(at, " %255s", name) != 1) return 1;
            printf("%d %d\n", seccomp_syscall_resolve_name(name) != -1,
                   seccomp_syscall_resolve_name_arch(0x4000003e, name));
            fflush(stdout);
        } else {
            int fd = memfd_create("bpf", 0);
            if (failed || seccomp_export_bpf(ctx, fd) != 0) {
                printf("error %d\n", failed);
            } else {
                long size = lseek(fd, 0, SEEK_END);
                char *bytes = malloc(size);
                if (pread(fd, bytes, size, 0) != size) return 1;
                printf("%ld\n", size);
                fwrite(bytes, 1, size, stdout);
                free(bytes);
            }
            close(fd);
            seccomp_release(ctx);
            fflush(stdout);
        }
    }
    return 0;
}
