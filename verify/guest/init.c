// SPDX-License-Identifier: Apache-2.0
/*
 * The guest's init: it obeys requests that come over a serial line and says what the kernel did.
 *
 *	request	@pfnmap SEQ CRC op key=value ...
 *	answer	@pfnmap SEQ INDEX CRC text		one line a fact, "end" last
 *
 * CRC is the CRC-32 of "SEQ text" (a request) or "SEQ INDEX text" (an answer), so that kernel messages in between, or
 * in the middle of a line, harm nothing. A request with the SEQ of the last answer is answered from memory: whoever
 * asks may ask again whenever in doubt.
 *
 * "record" forks the tester: a process with an empty test window, which performs the steps until "end"; "fork" makes
 * its child, which performs the steps that have by=child. After each step the kprobe events are drained and folded.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "guest.h"

#define WINDOW_START 0x100000000000ull
#define WINDOW_END 0x180000000000ull
#define MAX_RANGES 64
#define MAX_EVENTS 64
#define MAX_RETURNS 64
#define ANSWER_BYTES (512 << 10)
#define TRACE_BYTES (64 << 10)

struct fault {
	unsigned long long va;
	unsigned int order, ret, flags;
};

struct event {
	char name[16];
	unsigned long count;
};

struct event_return {
	char name[16];
	unsigned int ret;
	unsigned long count;
};

/* What the events since the last drain add up to. */
static struct {
	struct fault faults[LISTED_FAULTS], pending;
	unsigned long faults_total, lost;
	unsigned long long pgd;
	struct event events[MAX_EVENTS];
	struct event_return returns[MAX_RETURNS];
	int n_events, n_returns;
} seen;

struct range ranges[MAX_RANGES] = { { WINDOW_START, WINDOW_END } };
int n_ranges = 1;
struct child child;

/* The answer, and the number of the request it is to, are shared by init, the tester and the child. */
static struct { size_t length; unsigned long seq; char text[ANSWER_BYTES]; } *answer;
static char trace_text[TRACE_BYTES];
static size_t trace_held;
static int tty, trace_pipe = -1, kmsg = -1;
static char request[1024];

/* Requests and answers */

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

static void transmit(void)
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
			ssize_t wrote = write(tty, line + done, length - done);
			if (wrote < 0 && errno != EINTR && errno != EAGAIN)
				_exit(1);
			done += wrote > 0 ? wrote : 0;
		}
		index++;
	}
}

/* Reads a line of the tty; what does not fit is cut. */
static void read_line(char *line, size_t size)
{
	size_t length = 0;
	char c;
	for (;;) {
		ssize_t got = read(tty, &c, 1);
		if (got < 0 && errno != EINTR)
			_exit(1);
		if (got != 1)
			continue;
		if (c == '\n' || c == '\r')
			break;
		if (length < size - 1)
			line[length++] = c;
	}
	line[length] = 0;
}

/* Waits for a request that is whole and new. */
static void receive(void)
{
	char line[1100];
	for (;;) {
		unsigned long seq;
		unsigned int crc;
		int at = 0;
		char head[32];
		read_line(line, sizeof line);
		char *start = strstr(line, "@pfnmap ");
		if (!start || sscanf(start, "@pfnmap %lu %x %n", &seq, &crc, &at) != 2 || !at)
			continue;
		int head_length = snprintf(head, sizeof head, "%lu ", seq);
		if (crc32(start + at, strlen(start + at), crc32(head, head_length, 0)) != crc)
			continue;
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

/* Events */

static int in_ranges(unsigned long long va)
{
	for (int i = 0; i < n_ranges; i++)
		if (ranges[i].start <= va && va < ranges[i].end)
			return 1;
	return 0;
}

void watch_range(unsigned long long start, unsigned long long length)
{
	if (n_ranges < MAX_RANGES && !(in_ranges(start) && in_ranges(start + length - 1)))
		ranges[n_ranges++] = (struct range){ start, start + length };
}

static unsigned long long field(const char *line, const char *key, unsigned long long missing)
{
	const char *at = strstr(line, key);
	return at ? strtoull(at + strlen(key), NULL, 0) : missing;
}

static void count_event(const char *name, unsigned int ret, int is_return)
{
	int i;
	if (is_return) {
		for (i = 0; i < seen.n_returns; i++)
			if (seen.returns[i].ret == ret && !strcmp(seen.returns[i].name, name))
				break;
		if (i == MAX_RETURNS)
			return;
		if (i == seen.n_returns) {
			snprintf(seen.returns[i].name, sizeof seen.returns[i].name, "%s", name);
			seen.returns[i].ret = ret;
			seen.returns[i].count = 0;
			seen.n_returns++;
		}
		seen.returns[i].count++;
		return;
	}
	for (i = 0; i < seen.n_events; i++)
		if (!strcmp(seen.events[i].name, name))
			break;
	if (i == MAX_EVENTS)
		return;
	if (i == seen.n_events) {
		snprintf(seen.events[i].name, sizeof seen.events[i].name, "%s", name);
		seen.events[i].count = 0;
		seen.n_events++;
	}
	seen.events[i].count++;
}

/* One line of trace_pipe: "  NAME: (where) key=value ...". NAME "fault" and "fault_r" are the driver's handler. */
static void take_event(char *line)
{
	char *end = strstr(line, ": ("), *name = end;
	char *lost = strstr(line, "LOST ");
	if (lost)
		seen.lost += strtoul(lost + 5, NULL, 10);
	if (!end)
		return;
	while (name > line && name[-1] != ' ')
		name--;
	*end = 0;
	char *fields = end + 1;
	unsigned long long va = field(fields, " addr=", 0);
	if (!strcmp(name, "pgd")) {
		seen.pgd = field(fields, " ret=", 0);
	} else if (!strcmp(name, "fault")) {
		seen.pending.va = va;
		seen.pending.order = field(fields, " order=", 0);
		seen.pending.flags = field(fields, " flags=", 0);
	} else if (!strcmp(name, "fault_r")) {
		seen.pending.ret = field(fields, " ret=", 0);
		if (seen.faults_total < LISTED_FAULTS)
			seen.faults[seen.faults_total] = seen.pending;
		seen.faults_total++;
	} else if (!strstr(fields, " addr=") || in_ranges(va)) {
		count_event(name, field(fields, " ret=", 0), strstr(fields, " ret=") != NULL);
	}
}

static void drain(void)
{
	for (;;) {
		ssize_t got = read(trace_pipe, trace_text + trace_held, TRACE_BYTES - 1 - trace_held);
		if (got <= 0)
			return;
		trace_held += got;
		trace_text[trace_held] = 0;
		char *line = trace_text;
		for (char *end; (end = strchr(line, '\n')); line = end + 1) {
			*end = 0;
			take_event(line);
		}
		trace_held -= line - trace_text;
		memmove(trace_text, line, trace_held);
	}
}

static void forget_events(void)
{
	drain();
	seen.faults_total = seen.lost = 0;
	seen.n_events = seen.n_returns = 0;
}

static unsigned long count_of(const char *name)
{
	for (int i = 0; i < seen.n_events; i++)
		if (!strcmp(seen.events[i].name, name))
			return seen.events[i].count;
	return 0;
}

/* What is not an event: page-table bytes, split counters, kernel messages. */

static long proc_number(const char *path, const char *key)
{
	static char text[32768];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	ssize_t got;
	if (fd < 0)
		return 0;
	while ((got = read(fd, text + length, sizeof text - 1 - length)) > 0)
		length += got;
	close(fd);
	text[length] = 0;
	char *at = strstr(text, key);
	return at ? strtol(at + strlen(key), NULL, 10) : 0;
}

struct counters {
	long table_kb, split_pmd, split_pud;
};

static struct counters read_counters(void)
{
	return (struct counters){
		.table_kb = proc_number("/proc/self/status", "\nVmPTE:"),
		.split_pmd = proc_number("/proc/vmstat", "\nthp_split_pmd "),
		.split_pud = proc_number("/proc/vmstat", "\nthp_split_pud "),
	};
}

static void say_messages(int quietly)
{
	char text[2048];
	ssize_t got;
	for (;;) {
		got = read(kmsg, text, sizeof text - 1);
		if (got < 0 && errno == EPIPE)
			continue; /* overwritten before it was read */
		if (got <= 0)
			return;
		text[got] = 0;
		char *message = strchr(text, ';'), *end;
		if (quietly || !message)
			continue;
		if ((end = strchr(message, '\n')))
			*end = 0;
		say("message %.900s", message + 1);
	}
}

/* Measures one step around what performs it. */
static void measured(void (*perform)(void))
{
	forget_events();
	say_messages(1);
	struct counters before = read_counters();
	perform();
	struct counters after = read_counters();
	drain();
	for (unsigned long i = 0; i < seen.faults_total && i < LISTED_FAULTS; i++)
		say("fault %u 0x%x 0x%llx 0x%x", seen.faults[i].order, seen.faults[i].ret, seen.faults[i].va,
		    seen.faults[i].flags);
	say("faults %lu", seen.faults_total);
	for (int i = 0; i < seen.n_events; i++)
		say("call %s %lu", seen.events[i].name, seen.events[i].count);
	for (int i = 0; i < seen.n_returns; i++)
		say("return %s 0x%x %lu", seen.returns[i].name, seen.returns[i].ret, seen.returns[i].count);
	if (seen.lost)
		say("lost %lu", seen.lost);
	say("tables %ld", (after.table_kb - before.table_kb) * 1024);
	say("split %ld %ld", after.split_pmd - before.split_pmd, after.split_pud - before.split_pud);
	say_messages(0);
}

/* Touches: one byte by a load or a store of the CPU. */

static sigjmp_buf caught;
static volatile siginfo_t signal_seen;

static void on_signal(int number, siginfo_t *info, void *context)
{
	(void)context;
	signal_seen.si_signo = number;
	signal_seen.si_code = info->si_code;
	signal_seen.si_addr = info->si_addr;
	siglongjmp(caught, 1);
}

/* Returns 0, or the number of the signal. */
static int touch(unsigned long long va, int is_write)
{
	volatile char *byte = (volatile char *)(uintptr_t)va;
	if (sigsetjmp(caught, 1))
		return signal_seen.si_signo;
	if (is_write)
		*byte = 0;
	else
		(void)*byte;
	return 0;
}

static const char *signal_name(int number)
{
	return number == SIGBUS ? "SIGBUS" : number == SIGSEGV ? "SIGSEGV" : "SIGNAL";
}

void do_touch(void)
{
	unsigned long long va = number_of("va");
	int number = touch(va, !strcmp(text_of("access"), "write"));
	if (number)
		say("result signal=%s si_code=%d si_addr=0x%llx", signal_name(number), signal_seen.si_code,
		    (unsigned long long)(uintptr_t)signal_seen.si_addr);
	else
		say("result ok");
}

/* Folds touches with the same outcome in a row into a run: "run OFF TOUCHES HANDLED RESULT order:ret ...". */
void do_scan(void)
{
	unsigned long long start = number_of("start"), end = number_of("end"), step = number_of("step");
	int is_write = !strcmp(text_of("access"), "write");
	char outcome[512], last[512] = "";
	unsigned long long off = 0;
	unsigned long touches = 0, run = 0, total = 0;
	for (unsigned long long va = start; va < end; va += step, touches++) {
		forget_events();
		int number = touch(va, is_write);
		drain();
		int at = snprintf(outcome, sizeof outcome, "%lu %s", count_of("hmf"), number ? signal_name(number) : "ok");
		for (unsigned long i = 0; i < seen.faults_total && at < (int)sizeof outcome - 32; i++)
			at += snprintf(outcome + at, sizeof outcome - at, " %u:0x%x", seen.faults[i].order, seen.faults[i].ret);
		total += seen.faults_total;
		if (run && strcmp(outcome, last)) {
			say("run 0x%llx %lu %s", off, run, last);
			run = 0;
		}
		if (!run)
			off = va - start;
		run++;
		strcpy(last, outcome);
	}
	if (run)
		say("run 0x%llx %lu %s", off, run, last);
	say("scanned %lu %lu", touches, total);
	forget_events();
}

/* Processes */

static void settle_in(void)
{
	/* Own memory is touched now, so that no step adds tables for it. */
	char stack[65536];
	memset(stack, 1, sizeof stack);
	__asm__ volatile("" : : "r"(stack) : "memory");
	for (size_t i = 0; i < sizeof *answer; i += 4096)
		((volatile char *)answer)[i] = ((volatile char *)answer)[i];
	for (size_t i = 0; i < TRACE_BYTES; i += 4096)
		((volatile char *)trace_text)[i] = trace_text[i];
	for (size_t i = 0; i < sizeof seen; i += 4096)
		((volatile char *)&seen)[i] = ((volatile char *)&seen)[i];
	read_counters();
}

static void perform_request(void)
{
	char name[32];
	snprintf(name, sizeof name, "%.*s", (int)strcspn(request, " "), request);
	for (const struct op *op = ops; op->name; op++)
		if (!strcmp(op->name, name)) {
			op->perform();
			return;
		}
	say("unknown op %s", name);
}

static void child_loop(void)
{
	settle_in();
	(void)!write(child.from, "r", 1);
	while (read(child.to, request, sizeof request) == sizeof request) {
		measured(perform_request);
		(void)!write(child.from, "d", 1);
	}
	_exit(0);
}

void do_fork(void)
{
	int down[2], up[2];
	int stopped = !strcmp(text_of("stopped"), "true");
	char ready;
	if (pipe2(down, O_CLOEXEC) || pipe2(up, O_CLOEXEC)) {
		say_errno(-1);
		return;
	}
	seen.pgd = 0;
	pid_t pid = fork();
	if (!pid) {
		child.to = down[0];
		child.from = up[1];
		close(down[1]);
		if (stopped) {
			be_traced();
			_exit(0);
		}
		child_loop();
	}
	say_errno(pid);
	close(down[0]);
	close(up[1]);
	if (pid < 0)
		return;
	child = (struct child){ .pid = pid, .to = down[1], .from = up[0], .stopped = stopped };
	if (stopped)
		waitpid(pid, NULL, WUNTRACED);
	else if (read(up[0], &ready, 1) != 1)
		say("died");
	drain();
	say("pgd 0x%llx", seen.pgd);
}

void end_child(void)
{
	if (!child.pid)
		return;
	if (child.stopped)
		kill(child.pid, SIGKILL);
	close(child.to);
	close(child.from);
	waitpid(child.pid, NULL, 0);
	child.pid = 0;
}

void do_exit(void)
{
	end_child();
	say("result ok");
}

static int is_childs(void)
{
	return !strcmp(text_of("by"), "child") && strncmp(request, "exit", 4);
}

static void pass_to_child(void)
{
	char done;
	if (!child.pid || child.stopped)
		say("no child");
	else if (write(child.to, request, sizeof request) != sizeof request || read(child.from, &done, 1) != 1) {
		int status = 0;
		waitpid(child.pid, &status, 0);
		child.pid = 0;
		say("died 0x%x", status);
	}
}

static void tester_loop(void)
{
	settle_in();
	for (;;) {
		say("end");
		transmit();
		receive();
		if (!strncmp(request, "end", 3))
			break;
		if (is_childs())
			pass_to_child();
		else
			measured(perform_request);
	}
	end_child();
	_exit(0);
}

/* Forks the tester, which answers this request and those that follow; init answers the one that ends it. */
void do_record(void)
{
	int status = 0;
	n_ranges = 1;
	forget_events();
	seen.pgd = 0;
	pid_t pid = fork();
	if (!pid) {
		drain();
		say("pgd 0x%llx", seen.pgd);
		tester_loop();
	}
	waitpid(pid, &status, 0);
	answer->length = 0;
	if (status)
		say("died 0x%x", status);
}

/* Boot */

int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t wrote = write(fd, text, strlen(text));
	int error = errno;
	close(fd);
	errno = error;
	return wrote < 0 ? -1 : 0;
}

void do_module(void)
{
	char path[300];
	snprintf(path, sizeof path, "/modules/%.200s", text_of("file"));
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char parameters[128];
	snprintf(parameters, sizeof parameters, "%s", text_of("parameters"));
	say_errno(fd < 0 ? -1 : syscall(SYS_finit_module, fd, parameters, 0));
	close(fd);
}

void do_probe(void)
{
	char definition[512], path[128];
	snprintf(definition, sizeof definition, "%s", text_of("definition"));
	for (char *c = definition; (c = strchr(c, ','));)
		*c = ' ';
	if (write_file("/sys/kernel/tracing/kprobe_events", definition)) {
		say_errno(-1);
		return;
	}
	snprintf(path, sizeof path, "/sys/kernel/tracing/events/kprobes/%.32s/enable", text_of("event"));
	say_errno(write_file(path, "1"));
}

/* Only what init's children do is traced, without who and when. */
void do_trace(void)
{
	static const char *const settings[][2] = {
		{ "options/context-info", "0" },
		{ "options/event-fork", "1" },
		{ "buffer_size_kb", "65536" },
		{ "set_event_pid", "1" },
		{ "tracing_on", "1" },
	};
	char path[128];
	for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
		snprintf(path, sizeof path, "/sys/kernel/tracing/%s", settings[i][0]);
		if (write_file(path, settings[i][1])) {
			say("where %s", path);
			say_errno(-1);
			return;
		}
	}
	trace_pipe = open("/sys/kernel/tracing/trace_pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	say_errno(trace_pipe);
}

void do_write(void)
{
	char path[256];
	snprintf(path, sizeof path, "%.250s", text_of("path"));
	say_errno(write_file(path, text_of("value")));
}

void do_read(void)
{
	FILE *file = fopen(text_of("path"), "re");
	char line[800];
	while (file && fgets(line, sizeof line, file)) {
		line[strcspn(line, "\n")] = 0;
		say("line %s", line);
	}
	say_errno(file ? 0 : -1);
	if (file)
		fclose(file);
}

static void open_tty(void)
{
	char path[64] = "/dev/console", text[2048] = "", *at;
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t got = read(fd, text, sizeof text - 1);
	close(fd);
	if (got > 0 && (at = strstr(text, "pfnmap.tty=")))
		snprintf(path, sizeof path, "/dev/%.*s", (int)strcspn(at + 11, " \n"), at + 11);
	tty = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios raw;
	tcgetattr(tty, &raw);
	cfmakeraw(&raw);
	tcsetattr(tty, TCSANOW, &raw);
}

int main(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mkdir("/tmp", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
	open_tty();
	answer = mmap(NULL, sizeof *answer, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	lseek(kmsg, 0, SEEK_END);
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	say("hello");
	for (;;) {
		say("end");
		transmit();
		receive();
		perform_request();
	}
}
