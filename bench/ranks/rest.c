/* A rank that says that it is here, and rests until a signal ends it. For the bench, under any launcher.
 *
 *   rest FIFO    writes "RANK PID ATTEMPT NANOSECONDS\n" (CLOCK_MONOTONIC) in one write
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char *variable(const char *name, const char *other, const char *otherwise) {
    const char *value = getenv(name);
    if (!value) value = getenv(other);
    return value ? value : otherwise;
}

int main(int argc, char **argv) {
    struct timespec t;
    char line[128];
    int fd = argc > 1 ? open(argv[1], O_WRONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 2;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int length = snprintf(line, sizeof line, "%s %d %s %lld\n", variable("RANK", "OMPI_COMM_WORLD_RANK", "0"), (int)getpid(),
                          variable("TORCHELASTIC_RESTART_COUNT", "", "0"), t.tv_sec * 1000000000LL + t.tv_nsec);
    if (write(fd, line, length) != length) return 3;
    close(fd);
    for (;;) pause();
}
