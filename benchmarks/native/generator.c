/* A paced generator of two-way RTP calls, and the judge of what comes back.
 *
 * generator FILE STRETCHES CALLS SECONDS TRUNK_PORT AGENT_PORT < ports
 *
 * Every call sends a packet of 20 ms either way each 20 ms; calls are spread over the 20 ms in slices of 1 ms. All
 * trunk packets leave by one socket and all agent packets by another, in batches, so that one core can load a proxy
 * on the other. stdin: CALLS lines "TRUNK AGENT", the proxy's two ports of each call. FILE: G.711 octets, STRETCHES
 * equally long ones for the trunk side, then as many for the agent side; call i says stretch i modulo STRETCHES, round
 * and round, from a place of its own. A call is told by the port it comes back from, a packet by its place in its
 * stream: egress must number packets as ingress did, from wherever it likes.
 *
 * Calls begin one after the other over the first second, and the first second of each
 * counts for loss, not for time. Arrival is the kernel's receive time, so that this program's own delays do not count as the proxy's.
 * stdout: one JSON line. times in microseconds; late: by how much slices were sent after their time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WARM = 50, RAMP = 1000, SLICES = 20, PAYLOAD = 160, PACKET = 172, BATCH = 256, RING = 256, BUCKET_US = 10, BUCKETS = 50000 };

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

typedef struct {
    int64_t sent_at[RING];
    uint32_t sent, received;
    uint16_t offset;
    int known;
    int64_t last_in;
} Stream;

typedef struct {
    int fd;
    Stream *streams;              /* of packets that leave by this socket */
    struct sockaddr_in *to;
    int32_t by_port[65536];       /* proxy port -> call, for what comes in */
} Side;

static int64_t histogram[BUCKETS + 1], lateness[BUCKETS + 1];
static int64_t duplicates, strange;
static uint8_t *audio;
static uint32_t frames, stretches;

static void count(int64_t *in, int64_t us) {
    int64_t bucket = us < 0 ? 0 : us / BUCKET_US;
    in[bucket > BUCKETS ? BUCKETS : bucket]++;
}

static double quantile(const int64_t *in, double share) {
    int64_t total = 0, seen = 0;
    for (int i = 0; i <= BUCKETS; i++) total += in[i];
    for (int i = 0; i <= BUCKETS; i++)
        if ((seen += in[i]) >= share * total && total) return (i + 1.0) * BUCKET_US;
    return 0;
}

static int open_socket(int port) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), on = 1, room = 64 << 20;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at)) {
        perror("generator: bind");
        exit(2);
    }
    return fd;
}

static void send_slice(Side *side, int64_t slice, int calls, int which) {
    static uint8_t packets[BATCH][PACKET];
    static struct iovec parts[BATCH];
    static struct mmsghdr batch[BATCH];
    int call = slice % SLICES;
    while (call < calls) {
        int n = 0;
        int64_t at = now_ns();
        for (; call < calls && n < BATCH; call += SLICES) {
            Stream *s = &side->streams[call];
            if (slice < (int64_t)call * RAMP / calls) continue;
            uint32_t frame = (s->sent + call * 37u) % frames, stamp = htonl(s->sent * PAYLOAD), ssrc = htonl(call * 2 + which + 1);
            uint16_t sequence = htons(s->sent);
            uint8_t *p = packets[n];
            p[0] = 0x80;
            p[1] = s->sent ? 0 : 0x80;
            memcpy(p + 2, &sequence, 2);
            memcpy(p + 4, &stamp, 4);
            memcpy(p + 8, &ssrc, 4);
            memcpy(p + 12, audio + (((size_t)which * stretches + call % stretches) * frames + frame) * PAYLOAD, PAYLOAD);
            parts[n] = (struct iovec){p, PACKET};
            batch[n] = (struct mmsghdr){.msg_hdr = {.msg_name = &side->to[call], .msg_namelen = sizeof side->to[call],
                                                    .msg_iov = &parts[n], .msg_iovlen = 1}};
            s->sent_at[s->sent++ % RING] = at;
            n++;
        }
        for (int done = 0; done < n;) {
            int k = sendmmsg(side->fd, batch + done, n - done, 0);
            done += k > 0 ? k : (errno == EAGAIN ? 0 : 1); /* a refusal of a past packet is told on a later one */
        }
    }
}

static int receive(Side *here, Side *far) {
    static uint8_t packets[BATCH][256];
    static uint8_t control[BATCH][64];
    static struct sockaddr_in from[BATCH];
    static struct iovec parts[BATCH];
    static struct mmsghdr batch[BATCH];
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){packets[i], sizeof packets[i]};
        batch[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &parts[i],
                                           .msg_iovlen = 1, .msg_control = control[i], .msg_controllen = 64};
    }
    int n = recvmmsg(here->fd, batch, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++) {
        int32_t call = here->by_port[ntohs(from[i].sin_port)];
        if (call < 0 || batch[i].msg_len < 12 || (packets[i][1] & 127) > 34) { /* RTCP is 72 and up */
            strange++;
            continue;
        }
        Stream *s = &far->streams[call];
        struct cmsghdr *c = CMSG_FIRSTHDR(&batch[i].msg_hdr);
        struct timespec t;
        memcpy(&t, CMSG_DATA(c), sizeof t);
        uint16_t sequence;
        memcpy(&sequence, packets[i] + 2, 2);
        sequence = ntohs(sequence);
        if (!s->known) {
            s->known = 1;
            s->offset = sequence;
            s->last_in = -1;
        }
        uint16_t place = sequence - s->offset;
        int64_t in = s->last_in + (int16_t)(place - (uint16_t)s->last_in);
        if (in <= s->last_in) {
            duplicates++;
            continue;
        }
        s->last_in = in;
        s->received++;
        if (in >= WARM && in < s->sent && s->sent - in < RING)
            count(histogram, (t.tv_sec * 1000000000LL + t.tv_nsec - s->sent_at[in % RING]) / 1000);
    }
    return n;
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "generator FILE STRETCHES CALLS SECONDS TRUNK_PORT AGENT_PORT < ports\n");
        return 2;
    }
    int calls = atoi(argv[3]), seconds = atoi(argv[4]);
    stretches = atoi(argv[2]);
    int file = open(argv[1], O_RDONLY);
    off_t size = lseek(file, 0, SEEK_END);
    frames = size / PAYLOAD / 2 / stretches;
    audio = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (file < 0 || !frames || audio == MAP_FAILED) {
        fprintf(stderr, "generator: FILE is too short\n");
        return 2;
    }
    static Side sides[2];
    for (int i = 0; i < 2; i++) {
        sides[i].fd = open_socket(atoi(argv[5 + i]));
        sides[i].streams = calloc(calls, sizeof(Stream));
        sides[i].to = calloc(calls, sizeof(struct sockaddr_in));
        memset(sides[i].by_port, -1, sizeof sides[i].by_port);
    }
    for (int call = 0; call < calls; call++) {
        int port[2];
        if (scanf("%d %d", &port[0], &port[1]) != 2) {
            fprintf(stderr, "generator: a line of two ports for each call\n");
            return 2;
        }
        for (int i = 0; i < 2; i++) {
            sides[i].to[call] = (struct sockaddr_in){
                .sin_family = AF_INET, .sin_port = htons(port[i]), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
            sides[i].by_port[port[i]] = call;
        }
    }
    int64_t began = now_ns() + 20000000, slices = (int64_t)seconds * 1000;
    for (int64_t slice = 0; slice < slices; slice++) {
        int64_t due = began + slice * 1000000;
        while (now_ns() < due) {
            int got = receive(&sides[0], &sides[1]) + receive(&sides[1], &sides[0]);
            if (got <= 0 && due - now_ns() > 150000) usleep(50);
        }
        count(lateness, (now_ns() - due) / 1000);
        for (int i = 0; i < 2; i++) send_slice(&sides[i], slice, calls, i);
    }
    int64_t end = now_ns() + 500000000;
    while (now_ns() < end)
        if (receive(&sides[0], &sides[1]) + receive(&sides[1], &sides[0]) <= 0) usleep(200);
    int64_t sent[2] = {0}, received[2] = {0};
    int worst = 0;
    for (int i = 0; i < 2; i++)
        for (int call = 0; call < calls; call++) {
            Stream *s = &sides[i].streams[call];
            sent[i] += s->sent;
            received[i] += s->received;
            int lost = (int)(s->sent - s->received);
            if (lost > worst) worst = lost;
        }
    printf("{\"sent\": %ld, \"received\": %ld, \"to_agent\": %ld, \"to_trunk\": %ld, \"worst_call_lost\": %d, "
           "\"duplicates\": %ld, \"strange\": %ld, \"p50\": %.0f, \"p99\": %.0f, \"p999\": %.0f, "
           "\"late_p99\": %.0f, \"late_max\": %.0f}\n",
           sent[0] + sent[1], received[0] + received[1], received[0], received[1], worst, duplicates, strange,
           quantile(histogram, 0.5), quantile(histogram, 0.99), quantile(histogram, 0.999),
           quantile(lateness, 0.99), quantile(lateness, 1.0));
    return 0;
}
