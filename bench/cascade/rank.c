/* One rank of a cascade, for bench/cascades.py: small and quick to start, so that a thousand jobs take minutes.
 *
 * Ranks are joined by TCP: `star`, all to the culprit, or `ring`, each to the next. Once all are joined the culprit
 * fails. Whoever finds a connection closed waits, says so (or not), and ends: what a peer's death does to a program.
 *
 *   rank DIR CULPRIT star|ring FAULT MIB THREADS CORE DELAY_US VICTIM [SECOND FAULT2 GAP_US]
 *
 * DIR: where ranks leave their ports and the culprit its core. FAULT: kill (from another process), sigkill, segv,
 * abort, exit. VICTIM: words, silent, sigpipe. SECOND: another rank that fails by itself, GAP_US after the culprit
 * (before it, if negative).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *dir;
static int me, world;

static void nap(long us) {
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    if (us > 0) while (nanosleep(&t, &t)) {}
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void broken(const char *what) {
    fprintf(stderr, "the bench is broken: rank %d: %s: %s\n", me, what, strerror(errno));
    _exit(99);
}

static int listen_here(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0 || bind(s, (void *)&a, sizeof a) || listen(s, 64) || getsockname(s, (void *)&a, &size)) broken("listen");
    char name[500], there[500];
    snprintf(name, sizeof name, "%s/new.%d", dir, me);
    snprintf(there, sizeof there, "%s/port.%d", dir, me);
    FILE *f = fopen(name, "w");
    if (!f) broken(name);
    fprintf(f, "%d\n", ntohs(a.sin_port));
    fclose(f);
    if (rename(name, there)) broken("rename");
    return s;
}

static int join_rank(int other) {
    char name[500];
    int port = 0, s;
    snprintf(name, sizeof name, "%s/port.%d", dir, other);
    for (;;) {
        FILE *f = fopen(name, "r");
        if (f) {
            if (fscanf(f, "%d", &port) != 1) broken(name);
            fclose(f);
            break;
        }
        nap(1000);
    }
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0 || connect(s, (void *)&a, sizeof a)) broken("connect");
    return s;
}

static void one(int s, int take) {
    char c = 'x';
    if ((take ? read(s, &c, 1) : write(s, &c, 1)) != 1) broken(take ? "first read" : "first write");
}

static void *idle(void *_) {
    for (;;) pause();
    return _;
}

/* The instant of the failure, in a page that outlives us: a file that is opened and written takes longer than a kill. */
static char *stamped;

static void get_stamp(void) {
    char name[500];
    snprintf(name, sizeof name, "%s/failed.%d", dir, me);
    FILE *f = fopen(name, "w+");
    if (!f || ftruncate(fileno(f), 32)) broken(name);
    stamped = mmap(0, 32, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
    if (stamped == MAP_FAILED) broken("mmap");
    fclose(f);
}

static void stamp(void) {
    snprintf(stamped, 32, "%.9f", now());
}

static void fail(const char *how) {
    if (!strcmp(how, "kill")) {
        pid_t us = getpid(), helper = vfork();
        if (helper == 0) {
            stamp();
            kill(us, SIGKILL);
            _exit(0);
        }
        for (;;) pause();
    }
    stamp();
    if (!strcmp(how, "sigkill")) kill(getpid(), SIGKILL);
    if (!strcmp(how, "segv")) *(volatile int *)0 = 1;
    if (!strcmp(how, "abort")) abort();
    if (!strcmp(how, "exit")) exit(3);
    broken(how);
}

static void lost(const char *call, int error, long delay, const char *how) {
    nap(delay);
    if (strcmp(how, "silent")) fprintf(stderr, "%s: %s\n", call, error ? strerror(error) : "Connection closed by peer");
    _exit(1);
}

int main(int argc, char **argv) {
    if (argc < 10) return 98;
    dir = argv[1];
    int culprit = atoi(argv[2]), star = !strcmp(argv[3], "star"), threads = atoi(argv[6]), core = atoi(argv[7]);
    const char *fault = argv[4], *victim = argv[9];
    long mib = atol(argv[5]), delay = atol(argv[8]), gap = argc > 12 ? atol(argv[12]) : 0;
    int second = argc > 12 ? atoi(argv[10]) : -1;
    me = atoi(getenv("RANK")), world = atoi(getenv("WORLD_SIZE"));
    struct pollfd fds[64];
    int n = 0;

    if (me == culprit || me == second) {
        struct rlimit limit = {core ? RLIM_INFINITY : 0, RLIM_INFINITY};
        if (setrlimit(RLIMIT_CORE, &limit)) broken("RLIMIT_CORE");
        if (core && chdir(dir)) broken("chdir");
        get_stamp();
    }
    if (me == culprit) {
        if (mib) {
            char *held = mmap(0, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (held == MAP_FAILED) broken("mmap");
            for (long i = 0; i < mib << 20; i += 4096) held[i] = (char)(i >> 12 | 1);
        }
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 1 << 16);
        pthread_t thread;
        for (int i = 1; i < threads; i++) if (pthread_create(&thread, &small, idle, 0)) broken("pthread_create");
    }

    if (star) {
        if (me == culprit) {
            int s = listen_here();
            for (n = 0; n < world - 1; n++) if ((fds[n].fd = accept(s, 0, 0)) < 0) broken("accept");
        } else {
            fds[n++].fd = join_rank(culprit);
        }
    } else {
        int s = listen_here();
        fds[n++].fd = join_rank((me + 1) % world);
        if ((fds[n++].fd = accept(s, 0, 0)) < 0) broken("accept");
    }
    /* Everybody is joined once each has answered the culprit: directly, or by a byte that goes round twice. */
    if (star && me == culprit) {
        for (int i = 0; i < n; i++) one(fds[i].fd, 1);
        for (int i = 0; i < n; i++) one(fds[i].fd, 0);
    } else if (star) {
        one(fds[0].fd, 0);
        one(fds[0].fd, 1);
    } else {
        for (int round = 0; round < 2; round++) {
            if (me == culprit) one(fds[0].fd, 0), one(fds[1].fd, 1);
            else one(fds[1].fd, 1), one(fds[0].fd, 0);
        }
    }
    if (me == culprit || me == second) {
        nap(3000 + (me == second ? gap : 0) + (gap < 0 ? -gap : 0));
        fail(me == culprit ? fault : argv[11]);
    }

    char byte = 'y';
    if (!strcmp(victim, "sigpipe")) {
        for (;;) {
            if (send(fds[0].fd, &byte, 1, MSG_DONTWAIT) < 0 && errno != EAGAIN) lost("send", errno, delay, victim);
            nap(200);
        }
    }
    for (int i = 0; i < n; i++) fds[i].events = POLLIN;
    for (;;) {
        if (poll(fds, n, -1) < 0) broken("poll");
        for (int i = 0; i < n; i++) {
            if (!fds[i].revents) continue;
            ssize_t got = read(fds[i].fd, &byte, 1);
            if (got <= 0) lost("recv", got < 0 ? errno : 0, delay, victim);
        }
    }
}
