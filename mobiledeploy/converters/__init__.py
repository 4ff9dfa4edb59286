import mobiledeploy.frameworks  # noqa: F401 - TensorFlow's switches, before TensorFlow
