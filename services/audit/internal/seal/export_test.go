package seal

// At makes the sealer call at at every step.
func (s *Sealer) At(at func(Step)) { s.at = at }
