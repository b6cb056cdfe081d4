/* Preloaded into a process of a test: file operations fail as the file $FAILING_FILES says, read anew at each call.
 * Its lines are `OPERATION PATH-PART`: sync, write or read of a file whose path has that part fails with EIO. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static __thread int looking;

static int fails(const char *operation, int fd) {
    char link[64], path[512], line[256];
    const char *rules = getenv("FAILING_FILES");
    if (!rules || looking) return 0;
    looking = 1;
    int found = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    FILE *file = length > 0 ? fopen(rules, "r") : NULL;
    if (file) {
        path[length] = 0;
        while (!found && fgets(line, sizeof line, file)) {
            char named[32], part[128];
            found = sscanf(line, "%31s %127s", named, part) == 2 && !strcmp(named, operation) && strstr(path, part);
        }
        fclose(file);
    }
    looking = 0;
    return found;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL_OR(operation, fd, call) do { if (fails(operation, fd)) { errno = EIO; return -1; } return call; } while (0)

int fsync(int fd) { FAIL_OR("sync", fd, NEXT(fsync)(fd)); }
int fdatasync(int fd) { FAIL_OR("sync", fd, NEXT(fdatasync)(fd)); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at) { FAIL_OR("write", fd, NEXT(pwrite64)(fd, b, n, at)); }
ssize_t pread64(int fd, void *b, size_t n, off64_t at) { FAIL_OR("read", fd, NEXT(pread64)(fd, b, n, at)); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t at) { FAIL_OR("write", fd, NEXT(pwrite)(fd, b, n, at)); }
ssize_t pread(int fd, void *b, size_t n, off_t at) { FAIL_OR("read", fd, NEXT(pread)(fd, b, n, at)); }
