// SPDX-License-Identifier: Apache-2.0
/* Touches: one byte by a load or a store of the CPU, and what signal that gave. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "guest.h"

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

void catch_signals(void)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}
