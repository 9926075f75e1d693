/* The least that a media proxy can do: connected UDP sockets, one epoll, octets passed on as they came.
 *
 * relay CALLS FIRST_PORT TRUNK_PORT AGENT_PORT: call i takes the ports FIRST + 2i (trunk) and FIRST + 2i + 1 (agent);
 * both peers are on loopback. Prints "ready" and runs until it is killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in at(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int calls = atoi(argv[1]), first = atoi(argv[2]), epoll = epoll_create1(0);
    int *socks = malloc(sizeof(int) * 2 * calls);
    for (int i = 0; i < 2 * calls; i++) {
        struct sockaddr_in here = at(first + i), there = at(atoi(argv[3 + i % 2]));
        socks[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (bind(socks[i], (struct sockaddr *)&here, sizeof here) ||
            connect(socks[i], (struct sockaddr *)&there, sizeof there)) {
            perror("relay");
            return 2;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, socks[i], &event);
    }
    puts("ready");
    fflush(stdout);
    static struct epoll_event events[1024];
    static char packet[2048];
    for (;;) {
        int n = epoll_wait(epoll, events, 1024, -1);
        for (int k = 0; k < n; k++) {
            int i = events[k].data.u32;
            ssize_t size = recv(socks[i], packet, sizeof packet, 0);
            if (size > 0) send(socks[i ^ 1], packet, size, 0);
        }
    }
}
