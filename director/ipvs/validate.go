package ipvs

// Validate returns what the kernel would refuse about the service and its destinations, each as a sentence.
func (s Service) Validate() []error {
	return nil
}
