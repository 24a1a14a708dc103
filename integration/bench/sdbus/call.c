/* Calls a method with sd-bus, for the comparisons in integration/bench.
 *
 *	call ADDRESS NAME PATH INTERFACE MEMBER [ARGUMENT]
 *
 * ARGUMENT is a string; without it the method takes none. For each line that it
 * reads from standard input, "CALLERS SECONDS PACE", as many callers call for
 * so long over one connection, each when it has its answer, and not before PACE
 * seconds after it began the one before. It prints {"took":[ms,...],
 * "total":seconds}: of each call from its sending to its answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <systemd/sd-bus.h>

struct caller {
	double next, sent; /* when it may call, when it did; seconds */
	int waits;
};

static sd_bus *bus;
static char **target; /* NAME PATH INTERFACE MEMBER [ARGUMENT] */
static double *took;
static size_t calls, room;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what, int r)
{
	fprintf(stderr, "call: %s: %s\n", what, strerror(-r));
	exit(1);
}

static int answered(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct caller *c = userdata;
	const sd_bus_error *e = sd_bus_message_get_error(m);
	(void)error;
	if (e) {
		fprintf(stderr, "call: %s: %s\n", e->name, e->message ? e->message : "");
		exit(1);
	}
	if (calls == room) {
		room = room ? 2 * room : 4096;
		took = realloc(took, room * sizeof *took);
		if (!took)
			abort();
	}
	took[calls++] = 1000 * (now() - c->sent);
	c->waits = 0;
	return 1;
}

static void call(struct caller *c, double pace)
{
	int r = sd_bus_call_method_async(bus, NULL, target[0], target[1], target[2], target[3],
	                                 answered, c, target[4] ? "s" : "", target[4]);
	if (r < 0)
		fail("call", r);
	c->next += pace;
	c->waits = 1;
}

static double turn(int n, double seconds, double pace)
{
	struct caller *callers = calloc(n, sizeof *callers);
	double begin = now();
	if (!callers)
		abort();
	for (int i = 0; i < n; i++)
		callers[i].next = begin + pace * i / n;
	for (;;) {
		double t = now(), wake = begin + seconds;
		int busy = 0, r;
		for (int i = 0; i < n; i++) {
			struct caller *c = &callers[i];
			if (!c->waits && t < begin + seconds && c->next <= t) {
				c->sent = now();
				call(c, pace);
			}
			busy |= c->waits;
			if (!c->waits && c->next < wake)
				wake = c->next; /* later than t */
		}
		if (!busy && t >= begin + seconds)
			break;
		if ((r = sd_bus_process(bus, NULL)) < 0)
			fail("process", r);
		if (r > 0)
			continue; /* whoever has an answer calls again first */
		t = wake - now();
		/* At the end there is nothing but the answers that are out to wait for. */
		r = sd_bus_wait(bus, t > 0 ? (uint64_t)(t * 1e6) + 1 : UINT64_MAX);
		if (r < 0)
			fail("wait", r);
	}
	free(callers);
	return now() - begin;
}

int main(int argc, char **argv)
{
	int n, r;
	double seconds, pace;
	if (argc < 6 || argc > 7) {
		fprintf(stderr, "usage: call ADDRESS NAME PATH INTERFACE MEMBER [ARGUMENT]\n");
		return 2;
	}
	target = argv + 2; /* argv ends with NULL */
	if ((r = sd_bus_new(&bus)) < 0 || (r = sd_bus_set_address(bus, argv[1])) < 0 ||
	    (r = sd_bus_set_bus_client(bus, 1)) < 0 || (r = sd_bus_start(bus)) < 0)
		fail(argv[1], r);
	while (scanf("%d %lf %lf", &n, &seconds, &pace) == 3) {
		calls = 0;
		double total = turn(n, seconds, pace);
		printf("{\"took\":[");
		for (size_t i = 0; i < calls; i++)
			printf("%s%.4f", i ? "," : "", took[i]);
		printf("],\"total\":%.6f}\n", total);
		fflush(stdout);
	}
	sd_bus_flush_close_unref(bus);
	return 0;
}
