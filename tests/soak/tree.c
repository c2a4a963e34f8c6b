/* A tree to be watched: STANDING processes that wait, three levels deep, eight of them with the title of a worker, and
 * RATE short-lived ones a second, every tenth of which ends with 1 and every hundredth executes a program. The root says
 * "up" when all stand, and ends everything on SIGTERM. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t over;
static void on_term(int number) { (void)number; over = 1; }
static void nap(long ms) { struct timespec t = {ms / 1000, ms % 1000 * 1000000}; nanosleep(&t, NULL); }

static void stand(int below) {
    for (int n = 0; n < below; n++)
        if (fork() == 0) { stand(0); }
    signal(SIGTERM, SIG_DFL);
    for (;;) pause();
}

int main(int argc, char **argv) {
    if (argc < 3) { for (;;) pause(); }  /* executed anew, under another title */
    int standing = atoi(argv[1]), rate = atoi(argv[2]);
    for (int n = 0; n < 8; n++) {
        char title[32];
        snprintf(title, sizeof title, "VLLM::Worker_TP%d", n);
        if (fork() == 0) { execl("/proc/self/exe", title, (char *)NULL); _exit(127); }
    }
    int made = 8;
    while (made < standing) {  /* one that has nine below it */
        if (fork() == 0) stand(9);
        made += 10;
    }
    nap(500);
    printf("up\n"); fflush(stdout);
    signal(SIGTERM, on_term);
    struct timespec began, now;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (long n = 0; !over; n++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        double elapsed = now.tv_sec - began.tv_sec + (now.tv_nsec - began.tv_nsec) / 1e9;
        if (n > elapsed * rate) { nap(5); n--; }
        else if (fork() == 0) {
            if (n % 100 == 0) { execl("/bin/true", "true", (char *)NULL); _exit(127); }
            nap(n % 40);
            _exit(n % 10 == 0);
        }
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
    }
    kill(0, SIGTERM);
    while (wait(NULL) > 0 || errno == EINTR) {}
    return 0;
}
