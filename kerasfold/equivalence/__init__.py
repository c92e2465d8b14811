"""Two models: the same function, and as accurate?"""
