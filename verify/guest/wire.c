// SPDX-License-Identifier: Apache-2.0
/*
 * Requests and answers over the serial line, or over a port of a virtio console once the host has asked for that: an
 * answer goes where its request came from.
 *
 *	request	@pfnmap SEQ CRC op key=value ...
 *	answer	@pfnmap SEQ INDEX CRC text		one line a fact, "end" last
 *
 * CRC is the CRC-32 of "SEQ text" (a request) or "SEQ INDEX text" (an answer), so that kernel messages in between, or
 * in the middle of a line, harm nothing. A request with the SEQ of the last answer is answered from memory: whoever
 * asks may ask again whenever in doubt.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

#include "guest.h"

#define ANSWER_BYTES (512 << 10)

char request[REQUEST_BYTES];

/* The answer, and the number and the line of the request it is to, are shared by init, the tester and the child. */
static struct { size_t length; unsigned long seq; int line; char text[ANSWER_BYTES]; } *answer;
static struct pollfd lines[2] = { { .fd = -1, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
static struct { size_t length; char text[1100]; } held[2];

static uint32_t crc32(const char *text, size_t length, uint32_t crc)
{
	crc = ~crc;
	while (length--) {
		crc ^= (unsigned char)*text++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (0xedb88320u & -(crc & 1));
	}
	return ~crc;
}

void say(const char *format, ...)
{
	size_t room = ANSWER_BYTES - answer->length;
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(answer->text + answer->length, room, format, arguments);
	va_end(arguments);
	if (length < 0 || (size_t)length + 1 >= room)
		return;
	answer->length += length;
	answer->text[answer->length++] = '\n';
}

void say_errno(long result)
{
	say(result < 0 ? "result errno=%d" : "result ok", errno);
}

static char *argument(const char *key)
{
	static char value[512];
	size_t length = strlen(key);
	for (char *at = strchr(request, ' '); at; at = strchr(at + 1, ' '))
		if (!strncmp(at + 1, key, length) && at[1 + length] == '=') {
			char *from = at + 2 + length, *to = strchrnul(from, ' ');
			snprintf(value, sizeof value, "%.*s", (int)(to - from), from);
			return value;
		}
	return NULL;
}

const char *text_of(const char *key)
{
	char *value = argument(key);
	return value ? value : "";
}

unsigned long long number_of(const char *key)
{
	return strtoull(text_of(key), NULL, 0);
}

void transmit(void)
{
	char line[2048], head[64];
	int index = 0;
	for (char *text = answer->text, *end; text < answer->text + answer->length; text = end + 1) {
		end = memchr(text, '\n', answer->text + answer->length - text);
		int head_length = snprintf(head, sizeof head, "%lu %d ", answer->seq, index);
		uint32_t crc = crc32(text, end - text, crc32(head, head_length, 0));
		int length = snprintf(line, sizeof line, "@pfnmap %s%08x %.*s\n", head, crc, (int)(end - text), text);
		if (length >= (int)sizeof line) { /* cut, and the checksum says so */
			line[sizeof line - 2] = '\n';
			length = sizeof line - 1;
		}
		for (int done = 0; done < length;) {
			ssize_t wrote = write(lines[answer->line].fd, line + done, length - done);
			if (wrote < 0 && errno != EINTR && errno != EAGAIN)
				_exit(1);
			done += wrote > 0 ? wrote : 0;
		}
		index++;
	}
}

/* Takes a byte of a line; what does not fit is cut. Returns whether the line is whole. */
static int take_byte(int from)
{
	char c;
	ssize_t got = read(lines[from].fd, &c, 1);
	if (got < 0 && errno != EINTR && errno != EAGAIN)
		_exit(1);
	if (got != 1)
		return 0;
	if (c == '\n' || c == '\r') {
		held[from].text[held[from].length] = 0;
		held[from].length = 0;
		return 1;
	}
	if (held[from].length < sizeof held[from].text - 1)
		held[from].text[held[from].length++] = c;
	return 0;
}

/* Waits for a line; returns which it came over. */
static int read_line(void)
{
	for (;;) {
		if (poll(lines, 2, -1) < 0)
			continue;
		for (int i = 0; i < 2; i++)
			if (lines[i].revents & POLLIN && take_byte(i))
				return i;
	}
}

/* Waits for a request that is whole and new. */
void receive(void)
{
	for (;;) {
		unsigned long seq;
		unsigned int crc;
		int at = 0;
		char head[32];
		int from = read_line();
		char *start = strstr(held[from].text, "@pfnmap ");
		if (!start || sscanf(start, "@pfnmap %lu %x %n", &seq, &crc, &at) != 2 || !at)
			continue;
		int head_length = snprintf(head, sizeof head, "%lu ", seq);
		if (crc32(start + at, strlen(start + at), crc32(head, head_length, 0)) != crc)
			continue;
		answer->line = from;
		if (seq == answer->seq) {
			transmit();
			continue;
		}
		answer->seq = seq;
		answer->length = 0;
		snprintf(request, sizeof request, "%s", start + at);
		return;
	}
}

/* Listens to a port of a virtio console as well, where the kernel drives one. */
void do_wire(void)
{
	char path[64];
	int fd;
	snprintf(path, sizeof path, "%.60s", text_of("path"));
	for (int tries = 0; (fd = open(path, O_RDWR | O_CLOEXEC)) < 0 && tries < 20; tries++) {
		if (access("/sys/class/virtio-ports", F_OK))
			break;
		usleep(50000); /* the port is announced some time after its driver is there */
	}
	say_errno(fd);
	lines[1].fd = fd;
}

void clear_answer(void)
{
	answer->length = 0;
}

void touch_answer(void)
{
	for (size_t i = 0; i < sizeof *answer; i += 4096)
		((volatile char *)answer)[i] = ((volatile char *)answer)[i];
}

void open_wire(void)
{
	char path[64] = "/dev/console", text[2048] = "", *at;
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t got = read(fd, text, sizeof text - 1);
	close(fd);
	if (got > 0 && (at = strstr(text, "pfnmap.tty=")))
		snprintf(path, sizeof path, "/dev/%.*s", (int)strcspn(at + 11, " \n"), at + 11);
	int tty = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios raw;
	tcgetattr(tty, &raw);
	cfmakeraw(&raw);
	tcsetattr(tty, TCSANOW, &raw);
	lines[0].fd = tty;
	answer = mmap(NULL, sizeof *answer, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}
