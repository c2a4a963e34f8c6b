/* A rank in plain C that speaks systemd's protocol: STATUS=, READY=1, then WATCHDOG=1 again and again.
 *
 *   notify ROUNDS HEARTBEATS: after HEARTBEATS of them it falls silent (0: never), after ROUNDS it ends with 0 (0: never).
 *
 * With -DLIBSYSTEMD the words are sent by libsystemd's own sd_notify(3), else by one sendto(2) each. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifdef LIBSYSTEMD
int sd_notify(int unset_environment, const char *state); /* libsystemd.so.0; its header is in a package of its own */

static int tell(const char *state) { return sd_notify(0, state) > 0 ? 0 : -1; }
#else
static int tell(const char *state)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!name || (*name != '/' && *name != '@') || strlen(name) >= sizeof to.sun_path)
        return -1;
    memcpy(to.sun_path, name, strlen(name));
    if (*name == '@')
        to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ssize_t sent = fd < 0 ? -1 : sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to,
                                        offsetof(struct sockaddr_un, sun_path) + strlen(name));
    if (fd >= 0)
        close(fd);
    return sent == (ssize_t)strlen(state) ? 0 : -1;
}
#endif

int main(int count, char **words)
{
    long rounds = count > 1 ? atol(words[1]) : 0, heartbeats = count > 2 ? atol(words[2]) : 0;
    const char *rank = getenv("RANK");
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (tell("STATUS=reading the tables") || tell("READY=1\nSTATUS=serves"))
        return 3;
    printf("rank %s of %s is %d\n", rank, getenv("WORLD_SIZE"), (int)getpid());
    for (long round = 0; !rounds || round < rounds; round++) {
        struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
        nanosleep(&pause, NULL);
        if ((!heartbeats || round < heartbeats || strcmp(rank, "1")) && tell("WATCHDOG=1"))
            return 4;
    }
    tell("STOPPING=1");
    return 0;
}
