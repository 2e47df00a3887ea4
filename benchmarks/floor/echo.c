/* A WebSocket echo in C: one thread, epoll, nothing but what the benchmark asks. The floor under every other figure.
 *
 *     echo DESCRIPTOR
 *
 * serves on a listening socket that it inherits. It answers the opening handshake, echoes whole text and binary
 * messages (fragments are not joined), answers pings and closes; a broken frame ends the connection.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, READ_SIZE = 1 << 16, MOST_PAYLOAD = 1 << 20, MOST_HEAD = 1 << 13 };

/* Bytes that wait: unread ones of an unfinished frame, or unsent ones of a client that is slow. */
struct buffer {
    uint8_t *bytes;
    size_t length, room;
};

struct connection {
    int descriptor;
    int is_open;    /* the handshake is done */
    int is_ending;  /* closes when everything is sent */
    struct buffer in, out;
};

static int poller;
/* All connections read into the same memory: only what is left over of a frame gets memory of its own. */
static uint8_t scratch[MOST_PAYLOAD + MOST_HEAD + READ_SIZE];
static uint8_t replies[2 * sizeof scratch];

static void keep(struct buffer *buffer, const uint8_t *bytes, size_t length)
{
    if (buffer->length + length > buffer->room) {
        buffer->room = (buffer->length + length) * 2;
        buffer->bytes = realloc(buffer->bytes, buffer->room);
        if (buffer->bytes == NULL) {
            perror("realloc");
            exit(1);
        }
    }
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

static void forget(struct buffer *buffer)
{
    free(buffer->bytes);
    memset(buffer, 0, sizeof *buffer);
}

static void end(struct connection *connection)
{
    close(connection->descriptor);
    forget(&connection->in);
    forget(&connection->out);
    free(connection);
}

static void watch(struct connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    epoll_ctl(poller, operation, connection->descriptor, &event);
}

/* Writes what can be written and keeps the rest; false when the client is gone. */
static int send_all(struct connection *connection, const uint8_t *bytes, size_t length)
{
    ssize_t sent = 0;
    if (connection->out.length == 0 && length > 0) {
        sent = send(connection->descriptor, bytes, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return 0;
        sent = sent < 0 ? 0 : sent;
    }
    if ((size_t)sent < length) {
        /* A client that does not read is not read from either, so the rest cannot grow. */
        if (connection->out.length == 0)
            watch(connection, EPOLL_CTL_MOD, EPOLLOUT);
        keep(&connection->out, bytes + sent, length - (size_t)sent);
    }
    return 1;
}

/* SHA-1 (RFC 3174), for messages of at most 119 bytes: a key of 24 and the GUID of 36 characters are 60. */
static uint32_t rotated(uint32_t word, int bits)
{
    return word << bits | word >> (32 - bits);
}

static void sha1_block(uint32_t state[5], const uint8_t *block)
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotated(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20)
            f = (b & c) | (~b & d), k = 0x5a827999;
        else if (i < 40)
            f = b ^ c ^ d, k = 0x6ed9eba1;
        else if (i < 60)
            f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
        else
            f = b ^ c ^ d, k = 0xca62c1d6;
        uint32_t next = rotated(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotated(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

static void sha1(const char *message, size_t length, uint8_t digest[20])
{
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t padded[128] = {0};
    size_t size = length < 56 ? 64 : 128;
    memcpy(padded, message, length);
    padded[length] = 0x80;
    padded[size - 2] = (uint8_t)(length * 8 >> 8);
    padded[size - 1] = (uint8_t)(length * 8);
    for (size_t at = 0; at < size; at += 64)
        sha1_block(state, padded + at);
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const uint8_t digest[20], char text[29])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t bytes[21] = {0};
    memcpy(bytes, digest, 20);
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)bytes[3 * i] << 16 | (uint32_t)bytes[3 * i + 1] << 8 | bytes[3 * i + 2];
        for (int j = 0; j < 4; j++)
            text[4 * i + j] = letters[three >> (18 - 6 * j) & 63];
    }
    text[27] = '=';
    text[28] = 0;
}

/* Answers the request if it is whole; returns the bytes used, 0 for "not yet", -1 for "not a WebSocket". */
static ssize_t shake_hands(struct connection *connection, uint8_t *bytes, size_t length)
{
    static const char name[] = "\r\nSec-WebSocket-Key:";
    uint8_t *stop = memmem(bytes, length, "\r\n\r\n", 4);
    if (stop == NULL)
        return length < MOST_HEAD ? 0 : -1;
    *stop = 0;
    char *field = strcasestr((char *)bytes, name), key[25], accept[29], joined[64], response[256];
    if (field == NULL || sscanf(field + sizeof name - 1, " %24s", key) != 1)
        return -1;
    uint8_t digest[20];
    int size = snprintf(joined, sizeof joined, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    sha1(joined, (size_t)size, digest);
    base64(digest, accept);
    size = snprintf(response, sizeof response,
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Accept: %s\r\n\r\n",
                    accept);
    connection->is_open = 1;
    return send_all(connection, (uint8_t *)response, (size_t)size) ? stop + 4 - bytes : -1;
}

/* Puts the header of an unmasked frame; returns its size. */
static size_t put_header(uint8_t *to, uint8_t first, size_t length)
{
    to[0] = first;
    if (length < 126) {
        to[1] = (uint8_t)length;
        return 2;
    }
    int size = length < 1 << 16 ? 2 : 8;
    to[1] = size == 2 ? 126 : 127;
    for (int i = 0; i < size; i++)
        to[2 + i] = (uint8_t)((uint64_t)length >> 8 * (size - 1 - i));
    return 2 + (size_t)size;
}

static void unmask(uint8_t *to, const uint8_t *from, size_t length, const uint8_t mask[4])
{
    uint8_t eight[8];
    uint64_t key, word;
    memcpy(eight, mask, 4);
    memcpy(eight + 4, mask, 4);
    memcpy(&key, eight, 8);
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        memcpy(&word, from + at, 8);
        word ^= key;
        memcpy(to + at, &word, 8);
    }
    for (; at < length; at++)
        to[at] = from[at] ^ mask[at & 3];
}

/* Answers one frame if it is whole; returns the bytes used, 0 for "not yet", -1 for "broken". */
static ssize_t answer(struct connection *connection, const uint8_t *bytes, size_t length, size_t *filled)
{
    size_t header = 6;
    if (length < header)
        return 0;
    uint64_t payload = bytes[1] & 127;
    if (payload > 125) {
        int size = payload == 126 ? 2 : 8;
        header += (size_t)size;
        if (length < header)
            return 0;
        payload = 0;
        for (int i = 0; i < size; i++)
            payload = payload << 8 | bytes[2 + i];
    }
    uint8_t opcode = bytes[0] & 15;
    if (!(bytes[1] & 128) || !(bytes[0] & 128) || bytes[0] & 0x70 || payload > MOST_PAYLOAD)
        return -1;
    if (length < header + payload)
        return 0;
    if (opcode == 1 || opcode == 2 || opcode == 8 || opcode == 9) {
        *filled += put_header(replies + *filled, 128 | (opcode == 9 ? 10 : opcode), payload);
        unmask(replies + *filled, bytes + header, payload, bytes + header - 4);
        *filled += payload;
        connection->is_ending |= opcode == 8;
    }
    return (ssize_t)(header + payload);
}

/* Answers all that came; false when the connection is over. */
static int on_readable(struct connection *connection)
{
    size_t length = connection->in.length, used = 0, filled = 0;
    if (length > 0)
        memcpy(scratch, connection->in.bytes, length);
    ssize_t got = recv(connection->descriptor, scratch + length, READ_SIZE, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    length += (size_t)got;
    while (used < length && !connection->is_ending) {
        ssize_t more = connection->is_open ? answer(connection, scratch + used, length - used, &filled)
                                           : shake_hands(connection, scratch, length);
        if (more < 0)
            return 0;
        if (more == 0)
            break;
        used += (size_t)more;
    }
    connection->in.length = 0;
    if (used < length)
        keep(&connection->in, scratch + used, length - used);
    else if (connection->in.bytes != NULL)
        forget(&connection->in);
    return send_all(connection, replies, filled) && !(connection->is_ending && connection->out.length == 0);
}

static int on_writable(struct connection *connection)
{
    struct buffer *out = &connection->out;
    ssize_t sent = send(connection->descriptor, out->bytes, out->length, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN;
    out->length -= (size_t)sent;
    memmove(out->bytes, out->bytes + sent, out->length);
    if (out->length == 0) {
        forget(out);
        watch(connection, EPOLL_CTL_MOD, EPOLLIN);
        return !connection->is_ending;
    }
    return 1;
}

static void on_connection(int listening)
{
    int descriptor, yes = 1;
    while ((descriptor = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = calloc(1, sizeof *connection);
        if (connection == NULL) {
            perror("calloc");
            exit(1);
        }
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        connection->descriptor = descriptor;
        watch(connection, EPOLL_CTL_ADD, EPOLLIN);
    }
}

int main(int count, char **arguments)
{
    if (count != 2) {
        fprintf(stderr, "usage: echo DESCRIPTOR\n");
        return 2;
    }
    int listening = atoi(arguments[1]);
    struct epoll_event events[EVENTS], first = {.events = EPOLLIN, .data.ptr = NULL};
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (fcntl(listening, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listening, &first) < 0) {
        perror("listening socket");
        return 1;
    }
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection == NULL)
                on_connection(listening);
            else if (!(events[i].events & EPOLLOUT ? on_writable(connection) : on_readable(connection)))
                end(connection);
        }
    }
}
