/* hold PORT STREAMS KEY MODEL: opens so many streams and reads what they bring, until it is killed.
 *
 * Opens ten at a time, 5 ms apart, so that nobody's queue of new connections overflows. After each second it prints
 * how many streams have a header with status 200, how many ended, and how many bytes came: `open ended bytes`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define AT_ONCE 10
#define MOST_EVENTS 512
#define OPENING_MS 5

static int poller, port;
static char request[2048];
static int request_size;
static int *begun; /* by stream: whether its header came */
static int *plugs;
static long open_streams, ended, bytes;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void open_stream(int number) {
    int fd = plugs[number] = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (void *)&address, sizeof address) || write(fd, request, request_size) != request_size) {
        perror("hold");
        exit(1);
    }
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = number};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
}

static void readable(int number) {
    static char buffer[65536];
    int got = read(plugs[number], buffer, sizeof buffer);
    if (got <= 0) {
        close(plugs[number]);
        ended++;
        return;
    }
    bytes += got;
    if (!begun[number]) {
        begun[number] = 1;
        if (!strncmp(buffer, "HTTP/1.1 200", 12)) open_streams++;
    }
}

static void write_request(const char *key, const char *model) {
    char body[512];
    int size = sprintf(body,
                       "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"Say hello, slowly.\"}],"
                       "\"max_tokens\":4000,\"stream\":true}",
                       model);
    request_size = sprintf(request,
                           "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n"
                           "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                           port, key, size, body);
}

int main(int count, char **words) {
    if (count != 5) return 2;
    int streams = atoi(words[2]), opened = 0;
    port = atoi(words[1]);
    write_request(words[3], words[4]);
    begun = calloc(streams, sizeof(int));
    plugs = calloc(streams, sizeof(int));
    poller = epoll_create1(0);
    struct epoll_event events[MOST_EVENTS];
    double told = now();
    for (;;) {
        for (int i = 0; i < AT_ONCE && opened < streams; i++) open_stream(opened++);
        int ready = epoll_wait(poller, events, MOST_EVENTS, opened < streams ? OPENING_MS : 200);
        for (int i = 0; i < ready; i++) readable(events[i].data.u32);
        if (now() - told < 1) continue;
        told = now();
        printf("%ld %ld %ld\n", open_streams, ended, bytes);
        fflush(stdout);
    }
}
