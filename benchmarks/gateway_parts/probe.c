/* probe PORT INTERVAL_US SECONDS: GET /healthz on one kept connection, one each interval, and how long each took.
 *
 * An interval that passes while an answer is awaited is not made up for: a stall is seen as one long latency. Prints
 * one JSON object with the number of probes and median, 99th percentile and longest latency in milliseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REQUEST "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void pause_until(double at) {
    struct timespec t = {.tv_sec = (time_t)at, .tv_nsec = (long)((at - (time_t)at) * 1e9)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Until "ok\n", the whole of the body, is there. */
static int read_answer(int fd) {
    char buffer[4096];
    int filled = 0;
    while (filled < (int)sizeof buffer) {
        int got = read(fd, buffer + filled, sizeof buffer - filled);
        if (got <= 0) return 0;
        filled += got;
        if (filled > 7 && !memcmp(buffer + filled - 7, "\r\n\r\nok\n", 7)) return 1;
    }
    return 0;
}

int main(int count, char **words) {
    if (count != 4) return 2;
    double interval = atof(words[2]) / 1e6, seconds = atof(words[3]);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (void *)&address, sizeof address)) {
        perror("probe");
        return 1;
    }
    long most = (long)(seconds / interval) + 1, probes = 0;
    double *taken = calloc(most, sizeof(double)), began = now(), next = began;
    while (now() < began + seconds && probes < most) {
        pause_until(next);
        double asked = now();
        if (write(fd, REQUEST, sizeof REQUEST - 1) < 0 || !read_answer(fd)) {
            fprintf(stderr, "probe: the answer did not come\n");
            return 1;
        }
        taken[probes++] = (now() - asked) * 1e3;
        next = (next + interval > now()) ? next + interval : now();
    }
    qsort(taken, probes, sizeof(double), by_size);
    printf("{\"probes\":%ld,\"median_ms\":%.3f,\"p99_ms\":%.3f,\"longest_ms\":%.3f}\n", probes, taken[probes / 2],
           taken[(long)((probes - 1) * .99)], taken[probes - 1]);
}
