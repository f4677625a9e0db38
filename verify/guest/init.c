// SPDX-License-Identifier: Apache-2.0
/*
 * The guest's init: it obeys requests that come over a serial line (wire.c) and says what the kernel did (events.c).
 *
 * "record" forks the tester: a process with an empty test window, which performs the steps (ops.c) until "end"; "fork"
 * makes its child, which performs the steps that have by=child. After each step the events are drained and folded.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

struct child child;

static void settle_in(void)
{
	/* Own memory is touched now, so that no step adds tables for it. */
	char stack[65536];
	memset(stack, 1, sizeof stack);
	__asm__ volatile("" : : "r"(stack) : "memory");
	touch_answer();
	touch_events();
	touch_guest_ram();
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
	forget_ranges();
	forget_events();
	seen.pgd = 0;
	pid_t pid = fork();
	if (!pid) {
		drain();
		say("pgd 0x%llx", seen.pgd);
		tester_loop();
	}
	waitpid(pid, &status, 0);
	clear_answer();
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
	open_wire();
	open_kmsg();
	catch_signals();
	say("hello");
	for (;;) {
		say("end");
		transmit();
		receive();
		perform_request();
	}
}
