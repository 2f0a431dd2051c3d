package main

// counters takes out what alerts count by: one that never grows is an alert that never fires, and nothing else tells.
func counters() []mutation {
	const answers, intake, gauges = "services/gateway/internal/proxy/answers.go", "services/registry/internal/intake/intake.go", "services/registry/internal/gauges/gauges.go"
	gateway := func(run string) look { return these("services", "./gateway", run) }
	rise := these("services", "./registry", "TestFiguresOfAlarmsRise")
	return []mutation{
		one("the count of snapshots that were refused", "services/gateway/internal/held/held.go", "	s.metrics.refused(ctx, reason)\n", "", gateway("TestBadSnapshot")),
		one("the count of calls that were refused a turn", answers, "		p.metrics.crowded(ctx, load)\n", "", gateway("TestNeighbourIsAnsweredWhileAFlood")),
		one("the count of clients that are slow", answers, "		p.metrics.late(ctx, load)\n", "", gateway("TestClientsThatSendNothing")),
		one("the count of checkpoints that were refused", "services/registry/internal/server/reports.go", "		s.Intake.CheckpointRefused(ctx)\n", "", these("services", "./registry", "TestForkedLog")),
		one("the count of reports that were put off", intake, "			i.metrics.deferred.Add(ctx, 1)\n", "", these("services", "./registry", "TestReportsThatArePutOff")),
		one("the count of calls that a set answered", gauges, "		count(requests, f.GetRequests())\n", "", rise),
		one("the count of calls of a set that failed", gauges, "		count(failures, f.GetErrors())\n", "", rise),
		one("the count of jobs that became dead letters", gauges, "		count(failedJobs, f.GetFailedJobs())\n", "", rise),
		one("the count of starts that nobody meant", gauges, "		count(restarts, int64(c.GetUnmeantRestarts()))\n", "", rise),
	}
}
