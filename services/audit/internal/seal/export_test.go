package seal

// At makes the sealer call at at every step.
func (s *Sealer) At(at func(Step)) { s.at = at }

// Batches makes batches of at most rows.
func (s *Sealer) Batches(rows int32) { s.rows = rows }
