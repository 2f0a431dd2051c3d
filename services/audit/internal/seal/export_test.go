package seal

// At makes the sealer call at at every step.
func (s *Sealer) At(at func(Step)) { s.at = at }

// Batches makes batches of at most rows.
func (s *Sealer) Batches(rows int32) { s.rows = rows }

// Steps are all steps, for tests that crash at each.
func Steps() []Step {
	return []Step{StepLocked, StepResumed, StepDrained, StepAppended, StepTiled, StepMoved, StepSigned, StepCheckpointed, StepCommitted}
}
