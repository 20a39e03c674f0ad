/* upstream PORT CHUNKS GAP_US FAILURES SEED: an engine that speaks OpenAI's chat format and costs next to nothing.
 *
 * One thread, epoll. A call with "stream": true gets CHUNKS events, GAP_US microseconds apart (0: as fast as they go),
 * then one with the usage, then [DONE]; any other gets one JSON answer. FAILURES of a thousand calls fail, in equal
 * parts: the connection is reset before the header, in the middle of the answer, or the answer is a 500. With failures
 * the token counts, and how many events a stream has (1 to CHUNKS), are random too, so that no two calls look alike.
 * GET /served answers how many calls there were; every other GET says that all is well.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_FDS 8192
#define MOST_EVENTS 256
#define MOST_REQUEST 65536

typedef struct {
    char buffer[MOST_REQUEST];
    int filled;
    int place;       /* in `streaming`, -1 when no stream runs */
    int next, total; /* events sent, and to be sent before the usage */
    int cut;         /* after so many events the connection is reset; 0: never */
    int prompt;      /* tokens */
    long long due;   /* of the next event, us */
} Connection;

static Connection *connections[MOST_FDS];
static int streaming[MOST_FDS], streams;
static int poller, chunks, failures;
static long long gap;
static unsigned int seed;
static long served;

static long long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int chance(int most) { return rand_r(&seed) % most; }

static void stop_streaming(Connection *c) {
    if (c->place < 0) return;
    int last = streaming[--streams];
    streaming[c->place] = last;
    connections[last]->place = c->place;
    c->place = -1;
}

static void end(int fd) {
    stop_streaming(connections[fd]);
    close(fd);
}

/* With RST instead of FIN: what a process leaves behind that was killed. */
static void reset(int fd) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    end(fd);
}

/* 0 when the reader did not take all of it: it is gone, or too slow for this engine. */
static int say(int fd, const char *text, int size) {
    if (write(fd, text, size) == size) return 1;
    reset(fd);
    return 0;
}

static void answer(int fd, const char *status, const char *body) {
    char text[2048];
    int size = snprintf(text, sizeof text, "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                        status, strlen(body), body);
    say(fd, text, size);
}

static void whole(int fd, int prompt, int tokens, int broken) {
    char body[1024];
    snprintf(body, sizeof body,
             "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"fake-model\","
             "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello! This is a small fixed "
             "reply from the upstream server.\"},\"finish_reason\":\"stop\",\"logprobs\":null}],\"usage\":"
             "{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}}",
             prompt, tokens, prompt + tokens);
    if (!broken) return answer(fd, "200 OK", body);
    char text[2048];
    int size = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n\r\n%.*s", strlen(body), 40, body);
    if (say(fd, text, size)) reset(fd);
}

/* One piece of chunked transfer coding with one server-sent event in it. */
static int event(char *text, const char *choices, const char *more) {
    char json[512];
    int size = snprintf(json, sizeof json,
                        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
                        "\"model\":\"fake-model\",\"choices\":[%s]%s}\n\n",
                        choices, more);
    return sprintf(text, "%x\r\n%s\r\n", size, json);
}

static int delta(char *text, int number, int last) {
    char choice[256];
    snprintf(choice, sizeof choice, "{\"index\":0,\"delta\":{%s\"content\":\"word%d \"},\"finish_reason\":%s}",
             number ? "" : "\"role\":\"assistant\",", number, last ? "\"stop\"" : "null");
    return event(text, choice, "");
}

static int usage(char *text, int prompt, int tokens) {
    char more[128];
    snprintf(more, sizeof more, ",\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}", prompt,
             tokens, prompt + tokens);
    int size = event(text, "", more);
    return size + sprintf(text + size, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
}

static void begin_stream(int fd, Connection *c, int prompt, int total, int cut) {
    char text[1024];
    int size = sprintf(text, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                             "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
    size += delta(text + size, 0, total == 1);
    c->prompt = prompt, c->total = total, c->cut = cut, c->next = 1;
    c->due = now_us() + gap;
    c->place = streams;
    streaming[streams++] = fd;
    if (say(fd, text, size) && c->cut == 1) reset(fd);
}

static void next_event(int fd, Connection *c) {
    char text[1024];
    int last = c->next == c->total;
    int size = last ? usage(text, c->prompt, c->total) : delta(text, c->next, c->next == c->total - 1);
    if (last) stop_streaming(c);
    if (!say(fd, text, size) || last) return;
    c->due += gap;
    if (++c->next == c->cut) reset(fd);
}

static void call(int fd, Connection *c, const char *body, int size) {
    int stream = memmem(body, size, "\"stream\":true", 13) || memmem(body, size, "\"stream\": true", 14);
    int kind = failures && chance(1000) < failures ? 1 + chance(3) : 0;
    int prompt = failures ? 5 + chance(36) : 12, tokens = failures ? 1 + chance(32) : 14;
    int total = failures ? 1 + chance(chunks) : chunks;
    served++;
    if (kind == 1) return reset(fd);
    if (kind == 2) return answer(fd, "500 Internal Server Error", "{\"error\":{\"message\":\"it broke\"}}");
    if (!stream) return whole(fd, prompt, tokens, kind == 3);
    begin_stream(fd, c, prompt, total, kind == 3 ? 1 + chance(total) : 0);
}

static void look(int fd, const char *head) {
    char body[64];
    if (!strncmp(head, "GET /served", 11)) {
        snprintf(body, sizeof body, "{\"served\":%ld}", served);
        return answer(fd, "200 OK", body);
    }
    answer(fd, "200 OK", "{\"object\":\"list\",\"data\":[{\"id\":\"fake-model\",\"object\":\"model\"}]}");
}

/* Bytes of the first request in the buffer, 0 if it is not all there; `head` is the size of its header. */
static int whole_request(Connection *c, int *head) {
    char *blank = memmem(c->buffer, c->filled, "\r\n\r\n", 4);
    if (!blank) return 0;
    *head = blank - c->buffer + 4;
    char *length = strcasestr(c->buffer, "content-length:");
    if (length && length < blank) {
        int size = *head + atoi(length + 15);
        return size <= c->filled ? size : 0;
    }
    char *coding = strcasestr(c->buffer, "transfer-encoding: chunked");
    if (!coding || coding > blank) return *head;
    char *close_ = memmem(blank + 4, c->filled - *head, "0\r\n\r\n", 5);
    return close_ ? close_ + 5 - c->buffer : 0;
}

static void readable(int fd) {
    Connection *c = connections[fd];
    int got = read(fd, c->buffer + c->filled, MOST_REQUEST - 1 - c->filled);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return end(fd);
    c->filled += got;
    c->buffer[c->filled] = 0;
    int head, size;
    while ((size = whole_request(c, &head))) {
        char kept[MOST_REQUEST]; /* the connection may end in the call */
        memcpy(kept, c->buffer, size);
        kept[size] = 0;
        memmove(c->buffer, c->buffer + size, c->filled - size + 1);
        c->filled -= size;
        if (!strncmp(kept, "POST", 4)) call(fd, c, kept + head, size - head);
        else look(fd, kept);
    }
}

static void welcome(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MOST_FDS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (!connections[fd]) connections[fd] = malloc(sizeof(Connection));
        connections[fd]->filled = 0;
        connections[fd]->place = -1;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    }
}

/* Milliseconds until the next event is due; -1: no stream runs. */
static int patience(void) {
    if (!streams) return -1;
    if (!gap) return 0;
    long long now = now_us(), first = 1LL << 62;
    for (int i = 0; i < streams; i++)
        if (connections[streaming[i]]->due < first) first = connections[streaming[i]]->due;
    return first <= now ? 0 : (int)((first - now + 999) / 1000);
}

static void flow(void) {
    long long now = gap ? now_us() : 0;
    for (int i = streams - 1; i >= 0; i--) { /* downwards: who ends gives its place to the last one */
        Connection *c = connections[streaming[i]];
        if (!gap || c->due <= now) next_event(streaming[i], c);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) {
        perror("upstream");
        exit(1);
    }
    return fd;
}

int main(int count, char **words) {
    if (count != 6) return 2;
    int listener = listen_on(atoi(words[1]));
    chunks = atoi(words[2]), gap = atoll(words[3]), failures = atoi(words[4]), seed = atoi(words[5]);
    poller = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, events[MOST_EVENTS];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int ready = epoll_wait(poller, events, MOST_EVENTS, patience());
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener) welcome(listener);
            else readable(events[i].data.fd);
        }
        flow();
    }
}
