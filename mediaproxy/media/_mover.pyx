# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Datagrams between sockets and rows, compiled: what `mediaproxy.media.mover` does, call for call."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

import numpy as np


cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    int AF_INET, AF_INET6, MSG_DONTWAIT, MSG_NOSIGNAL
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct sockaddr_storage:
        unsigned short ss_family
    ssize_t recvfrom(int, void *, size_t, int, sockaddr *, socklen_t *)
    ssize_t sendto(int, const void *, size_t, int, const sockaddr *, socklen_t)

cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    cdef struct in6_addr:
        uint8_t s6_addr[16]
    cdef struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
    uint16_t htons(uint16_t)
    uint16_t ntohs(uint16_t)

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int, const char *, void *)
    const char *inet_ntop(int, const void *, char *, socklen_t)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLLIN, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)

cdef extern from "<unistd.h>" nogil:
    int close(int)

cdef enum:
    EVENTS = 4096

cdef struct Socket:
    int fd
    int family
    socklen_t known_length      # 0: nobody has been believed yet
    socklen_t refused_length
    socklen_t to_length         # 0: nothing is sent
    sockaddr_storage known      # the last address believed
    sockaddr_storage refused    # the last one that was not: a flood of it costs two comparisons a packet
    sockaddr_storage to


cdef class Mover:
    """See `mediaproxy.media.mover.Mover`."""

    cdef Socket *_sockets
    cdef int _epoll
    cdef int _capacity
    cdef object _judge
    cdef epoll_event _events[EVENTS]
    cdef readonly object strangers, unsent, shown

    def __cinit__(self, int capacity, judge):
        self._capacity = capacity
        self._sockets = <Socket *>calloc(2 * capacity, sizeof(Socket))
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self._sockets == NULL or self._epoll < 0:
            raise MemoryError("no room for the sockets of a worker")
        for i in range(2 * capacity):
            self._sockets[i].fd = -1
        self._judge = judge
        self.strangers = np.zeros(capacity, np.int64)
        self.unsent = np.zeros(capacity, np.int64)
        self.shown = np.zeros(capacity, np.bool_)

    def __dealloc__(self):
        free(self._sockets)
        if self._epoll >= 0:
            close(self._epoll)

    cdef Socket *_at(self, int slot, bint control) except NULL:
        if not 0 <= slot < self._capacity:
            raise IndexError("slot out of range")
        return &self._sockets[2 * slot + control]

    def add(self, int slot, bint control, int fd, int family):
        cdef Socket *s = self._at(slot, control)
        cdef epoll_event event
        memset(s, 0, sizeof(Socket))
        s.fd, s.family = fd, family
        event.events = EPOLLIN
        event.data.u32 = 2 * slot + control
        if epoll_ctl(self._epoll, EPOLL_CTL_ADD, fd, &event):
            s.fd = -1
            raise OSError(errno, "epoll_ctl")

    def remove(self, int slot, bint control):
        cdef Socket *s = self._at(slot, control)
        cdef epoll_event event
        if s.fd >= 0:
            epoll_ctl(self._epoll, EPOLL_CTL_DEL, s.fd, &event)
            s.fd = -1

    def forget(self, int slot):
        for control in range(2):
            s = self._at(slot, control)
            s.known_length = s.refused_length = 0

    def send_to(self, int slot, bint control, str host, int port):
        cdef Socket *s = self._at(slot, control)
        cdef sockaddr_in *four = <sockaddr_in *>&s.to
        cdef sockaddr_in6 *six = <sockaddr_in6 *>&s.to
        cdef bytes text = host.encode("ascii", "replace")
        s.to_length = 0
        if not 0 < port < 65536:
            return
        memset(&s.to, 0, sizeof(s.to))
        if s.family == AF_INET and inet_pton(AF_INET, text, &four.sin_addr) == 1:
            four.sin_family, four.sin_port = AF_INET, htons(port)
            s.to_length = sizeof(sockaddr_in)
        elif s.family == AF_INET6 and inet_pton(AF_INET6, text, &six.sin6_addr) == 1:
            six.sin6_family, six.sin6_port = AF_INET6, htons(port)
            s.to_length = sizeof(sockaddr_in6)

    cdef int _believed(
        self, Socket *s, int slot, bint control, sockaddr_storage *source, socklen_t length, uint8_t *data, ssize_t size
    ):
        """Whether a datagram from `source` is the peer's; -1: the judge has dealt with it."""
        cdef char text[64]
        cdef uint16_t port
        if s.known_length == length and memcmp(&s.known, source, length) == 0:
            return True
        if s.refused_length == length and memcmp(&s.refused, source, length) == 0:
            return False
        if source.ss_family == AF_INET:
            inet_ntop(AF_INET, &(<sockaddr_in *>source).sin_addr, text, 64)
            port = ntohs((<sockaddr_in *>source).sin_port)
        else:
            inet_ntop(AF_INET6, &(<sockaddr_in6 *>source).sin6_addr, text, 64)
            port = ntohs((<sockaddr_in6 *>source).sin6_port)
        datagram = (<char *>data)[:size] if self.shown[slot] else b""
        believed = self._judge(slot, control, ((<bytes>text).decode(), port), datagram)
        if believed:
            memcpy(&s.known, source, length)
            s.known_length = length
            return True
        if believed is None:
            return -1
        memcpy(&s.refused, source, length)
        s.refused_length = length
        return False

    def drain(self, rows, int burst):
        cdef uint8_t[:, ::1] slab = rows.slab
        cdef int64_t[::1] slots = rows.slot
        cdef int64_t[::1] lengths = rows.length
        cdef uint8_t[::1] controls = rows.control.view(np.uint8)
        cdef int64_t[::1] strangers = self.strangers
        cdef int room = slab.shape[0], width = slab.shape[1], count = 0, n, k, index, slot, turn
        cdef bint control
        cdef int believed
        cdef Socket *s
        cdef sockaddr_storage source
        cdef socklen_t length
        cdef ssize_t size
        for turn in range(burst):
            n = epoll_wait(self._epoll, self._events, min(EVENTS, room - count), 0) if room > count else 0
            if n <= 0:
                break
            for k in range(n):
                index = self._events[k].data.u32
                s = &self._sockets[index]
                if s.fd < 0:
                    continue
                slot, control = index >> 1, index & 1
                length = sizeof(source)
                size = recvfrom(s.fd, &slab[count, 0], width, MSG_DONTWAIT, <sockaddr *>&source, &length)
                if size < 0:  # nothing there after all, or an ICMP refusal of what was sent
                    continue
                believed = self._believed(s, slot, control, &source, length, &slab[count, 0], size)
                if believed != 1:
                    strangers[slot] += believed == 0
                    memset(&slab[count, 0], 0, size)
                else:
                    slots[count], lengths[count], controls[count] = slot, size, control
                    count += 1
        rows.count = count

    def discard(self, int burst):
        cdef char scratch[2048]
        cdef int turn, n, k
        cdef long found = 0
        for turn in range(burst):
            n = epoll_wait(self._epoll, self._events, EVENTS, 0)
            if n <= 0:
                break
            for k in range(n):
                found += recvfrom(self._sockets[self._events[k].data.u32].fd, scratch, 2048, MSG_DONTWAIT, NULL, NULL) >= 0
        memset(scratch, 0, sizeof(scratch))
        return found

    def send(self, rows):
        cdef uint8_t[:, ::1] slab = rows.slab
        cdef int64_t[::1] slots = rows.slot
        cdef int64_t[::1] lengths = rows.length
        cdef uint8_t[::1] controls = rows.control.view(np.uint8)
        cdef int64_t[::1] unsent = self.unsent
        cdef int row, count = rows.count
        cdef Socket *s
        for row in range(count):
            s = &self._sockets[2 * slots[row] + controls[row]]
            if s.fd < 0 or s.to_length == 0:
                continue
            if sendto(s.fd, &slab[row, 0], lengths[row], MSG_DONTWAIT | MSG_NOSIGNAL, <sockaddr *>&s.to, s.to_length) < 0:
                unsent[slots[row]] += 1
