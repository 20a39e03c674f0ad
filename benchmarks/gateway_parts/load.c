/* load PORT CONNECTIONS SECONDS STREAM KEY MODEL MOST: asks again as soon as it is answered, on every connection.
 *
 * HTTP/1.1 over connections that are kept. STREAM is 0 or 1; no call begins after SECONDS or after MOST of them, and
 * those under way are waited for. Prints one JSON object: answers that came whole with status 200 (`completed`), others
 * (`bad`, with the beginning of the first), connections that broke (`failed`), and latencies in milliseconds; `ttfc` is
 * from the request to the first byte of the body.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_ANSWER 131072
#define MOST_EVENTS 256
#define MOST_FAILURES 1000
#define PATIENCE_S 10

enum { BY_LENGTH, BY_CHUNKS, BY_CLOSE };

typedef struct {
    int fd;
    char buffer[MOST_ANSWER];
    int filled, head, status, closing, framing;
    long size; /* of header and body, when framed by length */
    double asked, first;
} Client;

static char request[4096];
static int request_size, poller, port, stream;
static double finish;
static long started, most, completed, bad, failed, live;
static double *latencies, *firsts;
static char first_bad[300];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void connect_to(Client *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (void *)&address, sizeof address)) {
        perror("load");
        exit(1);
    }
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e);
}

static void ask(Client *c) {
    c->filled = c->head = c->status = c->closing = 0;
    c->framing = BY_CLOSE;
    c->first = 0;
    c->asked = now();
    started++;
    if (write(c->fd, request, request_size) != request_size) perror("load");
}

/* The next call on this connection, or its end. */
static void go_on(Client *c, int closed) {
    int more = now() < finish && started < most && failed < MOST_FAILURES;
    if (closed || !more) close(c->fd);
    if (!more) {
        live--;
        return;
    }
    if (closed) connect_to(c);
    ask(c);
}

static void read_head(Client *c) {
    char *blank = memmem(c->buffer, c->filled, "\r\n\r\n", 4);
    if (!blank) return;
    c->head = blank - c->buffer + 4;
    c->status = atoi(c->buffer + 9);
    *blank = 0;
    char *length = strcasestr(c->buffer, "content-length:");
    if (length) {
        c->framing = BY_LENGTH;
        c->size = c->head + atol(length + 15);
    } else if (strcasestr(c->buffer, "transfer-encoding: chunked")) {
        c->framing = BY_CHUNKS;
    }
    c->closing = strcasestr(c->buffer, "connection: close") != NULL;
    *blank = '\r';
}

static int is_whole(Client *c) {
    if (!c->head) return 0;
    if (c->framing == BY_LENGTH) return c->filled >= c->size;
    return c->framing == BY_CHUNKS && c->filled > c->head + 4 && !memcmp(c->buffer + c->filled - 5, "0\r\n\r\n", 5);
}

static void note_bad(Client *c) {
    bad++;
    if (first_bad[0]) return;
    int size = c->filled < 280 ? c->filled : 280;
    for (int i = 0; i < size; i++) {
        char letter = c->buffer[i];
        first_bad[i] = letter < 32 || letter == '"' || letter == '\\' ? ' ' : letter;
    }
}

static void answered(Client *c, int closed) {
    double at = now();
    if (c->status != 200 || (stream && !memmem(c->buffer, c->filled, "[DONE]", 6))) {
        note_bad(c);
    } else {
        latencies[completed] = (at - c->asked) * 1e3;
        firsts[completed++] = ((c->first ? c->first : at) - c->asked) * 1e3;
    }
    go_on(c, closed || c->closing);
}

static void readable(Client *c) {
    int got = read(c->fd, c->buffer + c->filled, MOST_ANSWER - 1 - c->filled);
    if (got <= 0) {
        if (c->head && c->framing == BY_CLOSE) return answered(c, 1);
        failed++;
        return go_on(c, 1);
    }
    c->filled += got;
    c->buffer[c->filled] = 0;
    if (!c->head) read_head(c);
    if (c->head && !c->first && c->filled > c->head) c->first = now();
    if (is_whole(c)) answered(c, 0);
}

static void write_request(const char *key, const char *model) {
    char body[1024];
    int size = sprintf(body,
                       "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
                       "{\"role\":\"user\",\"content\":\"Say hello to the gateway, please.\"}],\"max_tokens\":32%s}",
                       model, stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
    request_size = sprintf(request,
                           "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n"
                           "Content-Type: application/json\r\nAccept: */*\r\nContent-Length: %d\r\n\r\n%s",
                           port, key, size, body);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, double share) {
    return completed ? sorted[(long)((completed - 1) * share)] : 0;
}

int main(int count, char **words) {
    if (count != 8) return 2;
    int clients = atoi(words[2]);
    double seconds = atof(words[3]);
    port = atoi(words[1]), stream = atoi(words[4]), most = atol(words[7]);
    write_request(words[5], words[6]);
    latencies = calloc(most + clients, sizeof(double));
    firsts = calloc(most + clients, sizeof(double));
    Client *all = calloc(clients, sizeof(Client));
    poller = epoll_create1(0);
    for (int i = 0; i < clients; i++) connect_to(&all[i]);
    double began = now();
    finish = began + seconds;
    live = clients;
    for (int i = 0; i < clients; i++) ask(&all[i]);
    struct epoll_event events[MOST_EVENTS];
    while (live > 0 && now() < finish + PATIENCE_S) {
        int ready = epoll_wait(poller, events, MOST_EVENTS, 1000);
        for (int i = 0; i < ready; i++) readable(events[i].data.ptr);
    }
    double took = now() - began;
    qsort(latencies, completed, sizeof(double), by_size);
    qsort(firsts, completed, sizeof(double), by_size);
    printf("{\"completed\":%ld,\"bad\":%ld,\"failed\":%ld,\"unanswered\":%ld,\"seconds\":%.4f,\"p50_ms\":%.4f,"
           "\"p99_ms\":%.4f,\"ttfc_ms\":%.4f,\"first_bad\":\"%s\"}\n",
           completed, bad, failed, live, took, quantile(latencies, .5), quantile(latencies, .99), quantile(firsts, .5),
           first_bad);
}
